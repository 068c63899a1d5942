# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How the processes of a run meet, whatever started them, and agree."""

import fcntl
import os
import re
import socket
import struct
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_main_process
from torch.distributed.rendezvous import rendezvous

# A process's number, their number and its number on its node, by launcher;
# what mmengine and torch read are torchrun's.
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=(
        *('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
)
COMMANDS = dict(
    pytorch='tools/dist_train.sh or tools/dist_test.sh',
    slurm='tools/slurm_train.sh, or by srun',
    mpi="Open MPI's mpirun",
)
NODES = ('SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST', 'SLURM_NODELIST')
# A node's name in Slurm's lists, with its numbers: "rack[1-2]gpu[01,04]".
NODE = re.compile(r'[^,\[]*(?:\[[^\]]*\][^,\[]*)*')
OWN = ('backend', 'timeout')  # settings of dist_cfg
PATIENCE = timedelta(minutes=10)  # in which all processes have to start
SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def meet(cfg: Config) -> None:
    """Have the processes of a run meet, by the variables of its launcher.

    ``cfg.launcher`` becomes "pytorch", as the variables are torchrun's from
    here on. On a CPU they communicate by gloo, on GPUs by
    ``env_cfg.dist_cfg.backend``. mmengine's runner takes the group as it is.
    Does nothing without a launcher, or if they have met.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: The launcher's variables are missing, a setting is not
            valid, or the processes did not meet.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or dist.is_initialized():
        return
    limit = time_limit(cfg)
    options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    set_variables(launcher, options.pop('port', None))
    cfg.launcher = 'pytorch'
    device = get_device()
    if device not in ('cpu', 'cuda') or 'init_backend' in options:
        return  # mmengine's runner knows how
    if device == 'cuda':
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    host, port = os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']
    try:
        addresses = route(host, port)
        store, rank, world = next(rendezvous('env://', timeout=PATIENCE))
    except (dist.DistError, OSError) as error:
        reason = str(error).split('\n')[0]
        raise ValueError(
            f'the processes did not meet at MASTER_ADDR={host} MASTER_PORT='
            f'{port} ({reason}): set them to the address of the first node, '
            'and to a port that is free there'
        ) from error
    set_interface(addresses, store, rank, world)
    if limit:
        store.set_timeout(limit)
    dist.init_process_group(
        options.get('backend', 'nccl') if device == 'cuda' else 'gloo',
        store=store,
        rank=rank,
        world_size=world,
        timeout=limit,
        **{k: v for k, v in options.items() if k not in OWN},
    )


def time_limit(cfg: Config) -> timedelta | None:
    """Return ``env_cfg.dist_cfg.timeout``, None for torch's own.

    How long a process waits for the others before it takes them for lost.

    Raises:
        ValueError: It is not a number of seconds.
    """
    options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    seconds = options.get('timeout')
    if seconds is None:
        return None
    if not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        raise ValueError(
            f'env_cfg.dist_cfg.timeout={seconds!r} must be a number of '
            'seconds > 0, e.g. 3600'
        )
    return timedelta(seconds=seconds)


def set_variables(launcher: str, port: int | None = None) -> None:
    """Set torchrun's variables from those of a launcher.

    ``MASTER_ADDR`` and ``MASTER_PORT`` stay as they are set. Under Slurm they
    are otherwise the first node of the step, and a port that follows from the
    job and the step, so that several can share a node. A process that sees
    fewer GPUs than its node has processes, as where Slurm binds each task to
    its own, takes one of those that it sees.

    Args:
        launcher (str): "pytorch", "slurm" or "mpi".
        port (int, optional): In place of ``MASTER_PORT``.

    Raises:
        ValueError: One is missing.
    """
    for name in VARIABLES[launcher]:
        if name not in os.environ:
            raise ValueError(
                f'--launcher={launcher}: {name} is not set: start the run by '
                f'{COMMANDS[launcher]}'
            )
    rank, world, local = (int(os.environ[n]) for n in VARIABLES[launcher])
    local %= torch.cuda.device_count() or local + 1
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(local)
    )
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    if launcher == 'slurm':
        lists = [os.environ[name] for name in NODES if name in os.environ]
        if lists:
            os.environ.setdefault('MASTER_ADDR', first_node(lists[0]))
        os.environ.setdefault('MASTER_PORT', str(slurm_port()))
    os.environ.setdefault('MASTER_PORT', '29500')  # torch's
    if 'MASTER_ADDR' not in os.environ:
        raise ValueError(
            f'--launcher={launcher}: set MASTER_ADDR to the address of the '
            'node of process 0'
        )


def first_node(nodes: str) -> str:
    """Return the first name of a list of nodes, as Slurm writes them.

    Containers often lack its command for that.

    Example:
        >>> first_node('rack[2-3]gpu[01,04-07],login')
        'rack2gpu01'
    """
    found = NODE.match(nodes)
    return re.sub(r'\[(\d+)[^\]]*\]', r'\1', found[0] if found else nodes)


def slurm_port() -> int:
    """Return the port of a step: 10000 + (job + 1000 step) modulo 20000.

    Linux gives out those from 32768 to any program.
    """
    job, step = (
        int(os.environ.get(name) or 0)
        for name in ('SLURM_JOB_ID', 'SLURM_STEP_ID')
    )
    return 10000 + (job + 1000 * step) % 20000


def route(host: str, port: str) -> tuple[str, str]:
    """Return this node's address and a host's, on the way there.

    Raises:
        OSError: There is none.
    """
    family, kind, *_, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM
    )[0]  # the system puts those first that it reaches
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
        own, other = probe.getsockname()[0], probe.getpeername()[0]
    return own.split('%')[0], other.split('%')[0]


def set_interface(
    addresses: tuple[str, str], store: dist.Store, rank: int, world: int
) -> None:
    """Have gloo use the interface by which the nodes reach each other.

    It would take the address that the node's name has, on many a loopback
    address. Where the first node has that for its own name, the others tell
    it which address they reach it by. ``GLOO_SOCKET_IFNAME`` stays as it is
    set, and unset where one node has all processes.

    Args:
        addresses (tuple[str, str]): This node's and the first node's.
        store (dist.Store): What the processes share.
        rank (int): This process's number.
        world (int): Their number.
    """
    own, first = addresses
    store.set(f'first_node_for_{rank}', first)
    if ip_address(own).is_loopback:
        seen = [
            store.get(f'first_node_for_{other}').decode()
            for other in range(world)
        ]
        own = next((a for a in seen if not ip_address(a).is_loopback), own)
    if not ip_address(own).is_loopback and (name := interface(own)):
        os.environ.setdefault('GLOO_SOCKET_IFNAME', name)


def interface(address: str) -> str | None:
    """Return the name of this node's interface that has an address."""
    wanted = ip_address(address)
    if wanted.version == 6:
        lines = Path('/proc/net/if_inet6').read_text().splitlines()
        names = (x.split()[-1] for x in lines if x[:32] == wanted.packed.hex())
        return next(names, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack('256s', name.encode())
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            if answer[20:24] == wanted.packed:
                return name
    return None


def on_first_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on process 0; all return what it returns there.

    Every process must call this. What the function returns is sent.

    Raises:
        ValueError: On all, in the same words, where the function raised an
            error; process 0 raises its own.
    """
    answer: list[Any] = [None, None]
    failure = None
    if is_main_process():
        try:
            answer[0] = function(*arguments)
        except Exception as error:
            # Whatever it is, the others would wait. In words, as not every
            # error can be sent.
            failure, answer[1] = error, str(error)
    broadcast_object_list(answer)
    if failure is not None:
        raise failure
    if answer[1] is not None:
        raise ValueError(answer[1])
    return answer[0]
