# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What sweep.py, grid.py and label_curve.py have in common, without torch.

Their options, and the commands that run beside them, their output in logs.
"""

import argparse
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from command_line import at_least, setting

# What a log of one or several processes says of a failure.
REASON = re.compile(r'^(?:\[rank\d+\]: )?((?:error|[\w.]+Error): .+)', re.M)
# Starts a command that gets SIGTERM when its parent dies, of SIGKILL too: no
# training is left behind. Linux alone has PR_SET_PDEATHSIG (1).
WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def add_run_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options of a command that runs many others.

    Args:
        parser (argparse.ArgumentParser): The command's.
        folder (str): Its default work directory, for the help.
    """
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help=f'for the runs and the table (default: work_dirs/{folder})',
    )
    parser.add_argument(
        '--gpus',
        type=at_least(1),
        metavar='N',
        help='run tools/dist_*.sh with this many processes, each with the '
        "config's batch size",
    )
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument(
        '--devices',
        nargs='+',
        metavar='GPU',
        help='run on these GPUs at the same time, one on each: 0 1 2 3; with '
        '--gpus 2 one on each pair: 0,1 2,3',
    )
    beside.add_argument(
        '--jobs',
        type=at_least(1),
        default=1,
        metavar='N',
        help='without --devices: run so many at the same time, with one '
        'thread each (default: 1)',
    )
    add_words(
        parser,
        '--cfg-options',
        'more settings of every training; the settings that the runs differ '
        'in override them',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='only print the commands that are left to run',
    )


def add_words(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    """Add settings, KEY=VALUE each, that are handed on to commands."""
    parser.add_argument(
        option,
        nargs='+',
        type=setting,
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help=text,
    )


def parse_run(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, name: str
) -> argparse.Namespace:
    """Parse the command line of a command that runs many others.

    Also sets ``lanes``: what the environment of each that runs side by side
    has more. Threads of several would wait for each other.

    Args:
        parser (argparse.ArgumentParser): With :func:`add_run_options`.
        argv (Sequence[str], optional): The words; None for the process's.
        name (str): The command's. With that of its config or list it names
            the default folder.
    """
    args = parser.parse_args(argv)
    if args.work_dir is None:
        source = Path(args.config if 'config' in args else args.list)
        args.work_dir = Path('work_dirs', f'{name}_{source.stem}')
    for device in args.devices or ():
        found, wanted = len(device.split(',')), args.gpus or 1
        if found != wanted:
            parser.error(
                f'--devices {device} names {found} GPUs, but each run has '
                f'{wanted}: set both alike, as in --gpus 2 --devices 0,1 2,3'
            )
    lanes = [dict(CUDA_VISIBLE_DEVICES=d) for d in args.devices or ()]
    args.lanes = lanes or [{}] * args.jobs
    if len(args.lanes) > 1:
        threads = os.environ.get('OMP_NUM_THREADS', '1')
        args.lanes = [x | dict(OMP_NUM_THREADS=threads) for x in args.lanes]
    return args


class Job:
    """A command that was started.

    The log is locked for as long as a process writes to it, so that no
    command is started twice.

    Args:
        command (Sequence[str]): Its words.
        log (Path): The file for what it prints.
        environment (Mapping[str, str]): What its environment has more.

    Raises:
        OSError: The log cannot be written.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.log = log
        self.process: subprocess.Popen | None = None  # it runs elsewhere
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'a', encoding='utf-8') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            except OSError as error:  # a file system without locks
                print(f'{log} is not locked: {error}', file=sys.stderr)
            file.truncate(0)
            self.process = call(command, file, environment)

    def outcome(self) -> str | None:
        """Return why it failed, "" if it did not, None if it runs."""
        if self.process is None:
            return f'it is running already, and writes to {self.log}'
        code = self.process.poll()
        if not code:
            return None if code is None else ''
        reason = read_reason(self.log) or 'see the log'
        return f'exit code {code}: {reason} (full log: {self.log})'


def call(
    command: Sequence[str], log: TextIO, environment: Mapping[str, str]
) -> subprocess.Popen:
    """Start the process of a command, which ends with this one."""
    return subprocess.Popen(
        [sys.executable, '-S', '-c', WITH_PARENT, *command],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment, 'PYTHON': sys.executable},
    )


def end(jobs: Iterable[Job]) -> None:
    """End jobs, and wait for them: a training saves itself first."""
    processes = [job.process for job in jobs if job.process]
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def read_reason(path: Path) -> str:
    """Return what a log says of a failure, "" if nothing."""
    if not path.is_file():
        return ''
    text = path.read_text(encoding='utf-8', errors='replace')
    reasons = REASON.findall(text)
    return reasons[-1] if reasons else ''
