# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run tools/train.py and tools/test.py, for tools that run them many times."""

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

TOOLS = Path(__file__).resolve().parent
# What a log of one or several processes says of a failure.
REASON = re.compile(r'^(?:\[rank\d+\]: )?((?:error|[\w.]+Error): .+)', re.M)


def make_command(
    tool: str, config: str, gpus: int | None, checkpoint: str | None = None
) -> list[str]:
    """Return the command that runs a config, without its work directory.

    Args:
        tool (str): "train" or "test".
        config (str): The config.
        gpus (int, optional): Number of processes; None runs one without a
            launcher.
        checkpoint (str, optional): That of ``--pretrained``. Defaults to
            None.
    """
    start = ['--pretrained', checkpoint] if checkpoint else []
    if gpus is None:
        return [sys.executable, str(TOOLS / f'{tool}.py'), config, *start]
    script = str(TOOLS / f'dist_{tool}.sh')
    if tool == 'test':  # which wants the checkpoint as a word of its own
        return [script, config, str(checkpoint), str(gpus)]
    return [script, config, str(gpus), *start]


def run_logged(command: Sequence[str], path: Path) -> str:
    """Run a command, its output to a log; return why it failed or "".

    The log is locked for as long as a process writes to it, so that what a
    killed tool left running is not started twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='utf-8') as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f'it is running already, and writes to {path}'
        except OSError as error:  # a file system without locks
            print(f'{path} is not locked: {error}', file=sys.stderr)
        log.truncate(0)
        code = call(command, log)
    if not code:
        return ''
    reason = read_reason(path) or 'see the log'
    return f'exit code {code}: {reason} (all of it: {path})'


def call(command: Sequence[str], log: TextIO) -> int:
    """Run a command to its end, or to ours; return its exit code."""
    environment = dict(os.environ, PYTHON=sys.executable)
    with socket.socket() as free:  # several of us may share a machine
        free.bind(('127.0.0.1', 0))
        environment.setdefault('PORT', str(free.getsockname()[1]))
    with subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=environment
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def read_reason(path: Path) -> str:
    """Return what a log says of a failure, "" if nothing."""
    if not path.is_file():
        return ''
    text = path.read_text(encoding='utf-8', errors='replace')
    reasons = REASON.findall(text)
    return reasons[-1] if reasons else ''


def make_progress() -> Progress:
    """Return a progress bar of runs."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def read_report(path: Path) -> dict[str, Any]:
    """Read a tool's report; none is empty.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is damaged ({error})') from error


def check_settings(
    path: Path, known: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Check that a work directory holds no runs of other settings.

    Args:
        path (Path): The report in it.
        known (Mapping): The settings that the report names.
        settings (Mapping): Those of this call.

    Raises:
        ValueError: One that both have differs.
    """
    for name, value in settings.items():
        if name in known and known[name] != value:
            raise ValueError(
                f'--work-dir {path.parent} holds the {path.stem} of {name}='
                f'{known[name]!r}, not {value!r}: name another one'
            )
