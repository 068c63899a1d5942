# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run a script in several processes, for dist_train.sh and dist_test.sh.

usage: python tools/processes.py PROCESSES SCRIPT [arguments of the script]

NNODES, NODE_RANK, MASTER_ADDR, PORT, MAX_RESTARTS and RUN_ID are read from
the environment, as those scripts describe. torchrun does the work; this
chooses its settings, says in one line why a run ended, and passes its exit
code on.

examples:
  # what tools/dist_train.sh configs/scfs_r50.py 8 runs
  python tools/processes.py 8 tools/train.py configs/scfs_r50.py \\
      --launcher pytorch
"""

import os
import signal
import socket
import sys
from ipaddress import ip_address

REQUEUE = 75  # of train.py: saved, start it again with --resume
SAVE_FAILED = 'MMSCFS_SAVE_FAILED'  # as engine/resume/preemption.py has it
# Sent on to the processes, which save the run on two of them.
SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1')
ENDS_WELL = (signal.SIGTERM, signal.SIGUSR1)


def number(name: str, default: int, low: int) -> int:
    """Return a whole number of the environment.

    Raises:
        ValueError: It is none, or lower than ``low``.
    """
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < low:
        raise ValueError(f'{name}={text!r} must be a whole number from {low}')
    return int(text)


def own_address(host: str, port: int) -> str:
    """Return the address by which the other nodes reach this one.

    That of the way to a host, or the host itself where that is this node: its
    own name may stand for a loopback address here alone.

    Raises:
        OSError: The host cannot be reached.
    """
    family, kind, *_, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
        own = probe.getsockname()[0]
    return host if ip_address(own.split('%')[0]).is_loopback else own


def torchrun_options(processes: str, arguments: list[str]) -> list[str]:
    """Return torchrun's options, from the environment.

    Args:
        processes (str): Number of processes on this node.
        arguments (list[str]): Those of the script.

    Raises:
        ValueError: A setting is not valid.
    """
    nodes = number('NNODES', 1, 1)
    rank = number('NODE_RANK', 0, 0)
    host = os.environ.get('MASTER_ADDR', '127.0.0.1')
    # 0: any that is free.
    port = number('PORT', 29500 if nodes > 1 else 0, int(nodes > 1))
    restarts = number('MAX_RESTARTS', 0, 0)
    if not processes.isdecimal() or int(processes) < 1:
        raise ValueError(
            f'PROCESSES={processes!r} must be a whole number from 1'
        )
    if rank >= nodes:
        raise ValueError(f'NODE_RANK={rank} must be below NNODES={nodes}')
    resumes = any(word.split('=')[0] == '--resume' for word in arguments)
    if restarts and not resumes:
        raise ValueError(
            f'MAX_RESTARTS={restarts} would start the run from its beginning '
            'again: add --resume'
        )
    if nodes > 1 and 'MASTER_ADDR' not in os.environ:
        raise ValueError(
            f'NNODES={nodes} needs MASTER_ADDR, the address of the node of '
            'NODE_RANK=0'
        )
    try:
        address = own_address(host, port)
    except OSError as error:
        raise ValueError(
            f'MASTER_ADDR={host!r} cannot be reached: {error}'
        ) from error
    # A node that comes back would wait for the store of the first start.
    os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
    return [
        f'--nnodes={nodes}',
        f'--nproc-per-node={processes}',
        f'--max-restarts={restarts}',
        '--rdzv-backend=c10d',
        f'--rdzv-endpoint={f"[{host}]" if ":" in host else host}:{port}',
        # How long to wait for the node that the others meet at.
        f'--rdzv-conf=is_host={int(rank == 0)},read_timeout=600',
        f'--rdzv-id={os.environ.get("RUN_ID", "mmscfs")}',
        f'--local-addr={address}',
        f'--signals-to-handle={",".join(SIGNALS)}',
    ]


def main(argv: list[str]) -> int:
    """Run the processes, return the exit code of the first that failed."""
    if len(argv) < 2:
        is_asked = argv and argv[0] in ('-h', '--help')
        print(__doc__.strip(), file=sys.stdout if is_asked else sys.stderr)
        return 0 if is_asked else 2
    processes, script, *arguments = argv
    try:
        options = torchrun_options(processes, arguments)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    # Where a process notes whether its save failed: in memory, as it is a
    # full disk that fails most, and for as long as the run may take.
    note = os.memfd_create('save_failed')
    os.environ[SAVE_FAILED] = f'/proc/{os.getpid()}/fd/{note}'
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import (
        ChildFailedError,
    )
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    try:
        run.run(run.parse_args([*options, script, *arguments]))
    except SignalException as error:
        ended = f'ended by {error.sigval.name}'
        if os.pread(note, 1, 0) == b'1':
            print(f'error: {ended}, and not saved', file=sys.stderr)
            return 1
        print(ended, file=sys.stderr)
        if error.sigval in ENDS_WELL:
            return REQUEUE
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        who = f'process {rank} (pid {failure.pid})'
        if code < 0:
            code = 128 - code
            how = (
                f'error: {who} was killed by {signal.Signals(code - 128).name}'
            )
        else:  # it has said why
            how = f'{who} ended with exit code {code}'
        print(f'{how}, and all others were ended with it', file=sys.stderr)
        return code
    except RendezvousError as error:
        print(
            f'error: the nodes did not meet at {options[4]}: {error}',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
