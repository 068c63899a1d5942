# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Commands that run beside this process, their output in logs."""

import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

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
    with socket.socket() as free:  # several may share a machine
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    given = dict(PORT=port) | os.environ | environment
    return subprocess.Popen(
        [sys.executable, '-S', '-c', WITH_PARENT, *command],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=given | dict(PYTHON=sys.executable),
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
