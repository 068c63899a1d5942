# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What tools/sweep.py and grid.py share: many runs, one after another.

Each is a command of tools/train.py or test.py. What is done is not repeated,
what failed is named with its log, and the others continue.
"""

import argparse
import fcntl
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from command_line import setting
from rich.progress import Progress, TimeElapsedColumn

TOOLS = Path(__file__).resolve().parent
# What a log of one or several processes says of a failure.
REASON = re.compile(r'^(?:\[rank\d+\]: )?((?:error|[\w.]+Error): .+)', re.M)
Main = Callable[[Sequence[str] | None], int]


# The command line


def positive(text: str) -> int:
    """Return a whole number from 1; a type of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} must be 1 or more')
    return int(text)


def add_run_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that all lists of runs have.

    Args:
        parser (argparse.ArgumentParser): The command's.
        name (str): Of its default work directory.
    """
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help=f'for the runs and the table (default: work_dirs/{name})',
    )
    parser.add_argument(
        '--gpus',
        type=positive,
        metavar='N',
        help='run tools/dist_*.sh with this many processes, each with the '
        "config's batch size",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=setting,
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='more settings of every training. What the runs differ in has '
        'the last word',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='only print the commands that are left to run',
    )


def commanded(main: Main) -> Main:
    """Let a command end well: a decorator of its ``main``.

    ValueError and OSError become a line and exit code 2. Ctrl-C and SIGTERM
    end the run that is under way too, with exit code 130.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return main(argv)
        except (ValueError, OSError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(
                'stopped: the same command continues where it was',
                file=sys.stderr,
            )
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


# The runs


@dataclass(kw_only=True, eq=False)
class Step:
    """One command of tools/train.py or test.py.

    Attributes:
        name (str): What it is called in lines of text.
        config (str): The config.
        folder (Path): Its work directory.
        settings (Sequence[str]): For ``--cfg-options``, KEY=VALUE each.
        tool (str): "train" or "test". Defaults to "train".
        start (Path, optional): The checkpoint for ``--pretrained``. Defaults
            to None.
        network (str, optional): For ``--network``. Defaults to None.
        problem (str): Why it failed in this call, else "".
    """

    name: str
    config: str
    folder: Path
    settings: Sequence[str]
    tool: str = 'train'
    start: Path | None = None
    network: str | None = None
    problem: str = ''

    @property
    def log(self) -> Path:
        """What the command prints."""
        return self.folder / f'{self.tool}.log'

    def missing(self) -> str:
        """Say why it is not done, "" if it is."""
        raise NotImplementedError

    def reached(self) -> str:
        """Say in a word what it has reached."""
        return 'done'

    def resume(self) -> list[str]:
        """Return the options that start or continue a training."""
        return ['--overwrite']

    def command(self, gpus: int | None) -> list[str]:
        """Return the command line.

        Args:
            gpus (int, optional): Number of processes; None runs one without
                a launcher.
        """
        start = ['--pretrained', str(self.start)] if self.start else []
        script = str(TOOLS / f'dist_{self.tool}.sh')
        if gpus is None:
            tool = str(TOOLS / f'{self.tool}.py')
            command = [sys.executable, tool, self.config, *start]
        elif self.tool == 'test':  # its checkpoint has no option
            command = [script, self.config, str(self.start), str(gpus)]
        else:
            command = [script, self.config, str(gpus), *start]
        if self.network:
            command += ['--network', self.network]
        command += ['--work-dir', str(self.folder)]
        if self.tool == 'train':
            command += self.resume()
        if self.settings:
            command += ['--cfg-options', *self.settings]
        return command

    def run(self, gpus: int | None) -> None:
        """Run it, and keep in ``problem`` why it failed.

        Raises:
            OSError: The log cannot be written.
        """
        failure = run_logged(self.command(gpus), self.log)
        self.problem = failure or self.missing()


def run_steps(
    steps: Sequence[Step], gpus: int | None, report: Callable[[], object]
) -> None:
    """Run steps; those whose checkpoint is missing are skipped.

    Args:
        steps (Sequence[Step]): Those that are not done, in order.
        gpus (int, optional): Number of processes of each.
        report (Callable): Called after each that ran.

    Raises:
        OSError: A log cannot be written.
    """
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task('', total=len(steps))
        for step in steps:
            progress.update(task, description=step.name)
            if step.start is None or step.start.is_file():
                step.run(gpus)
                report()
                progress.console.print(
                    f'{step.name}: {step.problem or step.reached()}',
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            progress.advance(task)


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
    return f'exit code {code}: {reason} (full log: {path})'


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
            process.wait()  # a training saves itself first
            raise


def read_reason(path: Path) -> str:
    """Return what a log says of a failure, "" if nothing."""
    if not path.is_file():
        return ''
    text = path.read_text(encoding='utf-8', errors='replace')
    reasons = REASON.findall(text)
    return reasons[-1] if reasons else ''


# The report


def read_report(path: Path) -> dict[str, Any]:
    """Read a tool's report; a missing one is empty.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{path} is damaged ({error}): remove it, or name another '
            '--work-dir'
        ) from error


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
                f'{known[name]!r}, not {value!r}: choose another folder'
            )


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write a report for :func:`read_report`.

    Raises:
        OSError: It cannot be written.
    """
    from mmscfs.checkpoint import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2)
    write_atomically(path, f'{text}\n'.encode())


def show_tables(
    path: Path,
    title: str,
    note: str,
    tables: Sequence[Any],
    problems: Mapping[str, str],
    is_last: bool,
) -> int:
    """Write tables as markdown and CSV; the last time print them too.

    Args:
        path (Path): The markdown file.
        title (str): The heading.
        note (str): What holds of all scores.
        tables (Sequence[Table]): The tables.
        problems (Mapping[str, str]): Why runs have no score, by name.
        is_last (bool): Whether it is the last time.

    Returns:
        int: The exit code of a command: 1 if the last writing failed.

    Raises:
        OSError: Writing failed before.
    """
    from mmscfs.results.tables import Summary

    unscored = [f'{name}: {why}' for name, why in problems.items()]
    summary = Summary(title, note, [*tables], unscored)
    if is_last:
        return summary.publish(path, '--work-dir')
    summary.write(path)
    return 0
