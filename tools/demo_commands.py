# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run the commands that the demo consists of."""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

ROOT = Path(__file__).resolve().parent.parent
console = Console()


def show(command: list[str]) -> None:
    """Print a command as one would type it."""
    words = ['python' if word == sys.executable else word for word in command]
    text = f'$ {shlex.join(words)}'
    console.print(text, style='bold', highlight=False, markup=False)


def run(*words: str | int | Path) -> None:
    """Show and run a command of ours.

    Raises:
        SystemExit: It failed, and has said why.
    """
    command = [sys.executable, *map(str, words)]
    show(command)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)


class Training(NamedTuple):
    """One run of tools/train.py.

    Attributes:
        title (str): Stands before its progress.
        config (str): The config, below the repository.
        work_dir (Path): Gets ``train.log`` as well.
        options (list[str]): More options of tools/train.py.
        cfg_options (list[str]): KEY=VALUE each.
    """

    title: str
    config: str
    work_dir: Path
    options: list[str]
    cfg_options: list[str]

    def follow(self, progress: Progress, environment: dict) -> Path:
        """Run it, keep its output, and show how far it is.

        Returns:
            Path: The last checkpoint.

        Raises:
            SystemExit: The training failed; with its last words.
        """
        command = [sys.executable, 'tools/train.py', self.config]
        command += ['--work-dir', str(self.work_dir), '--overwrite']
        command += [*self.options, '--cfg-options', *self.cfg_options]
        show(command)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        log_path = self.work_dir / 'train.log'
        task = progress.add_task(self.title, state='')
        tail = []
        with (
            open(log_path, 'w', encoding='utf-8') as log,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            for line in process.stdout:
                log.write(line)
                tail = [*tail[-24:], line]
                # mmengine's: where it is, and how long it will take.
                _, found, state = line.partition('(train)')
                if found:
                    progress.update(task, state=' '.join(state.split()))
        if process.returncode:
            raise SystemExit(
                f'{"".join(tail)}\nthe training failed; all of it: {log_path}'
            )
        progress.update(task, total=1, completed=1)
        return Path((self.work_dir / 'last_checkpoint').read_text().strip())


def train(*trainings: Training) -> list[Path]:
    """Run trainings side by side.

    Returns:
        list[Path]: The last checkpoint of each.

    Raises:
        SystemExit: One failed; its last words are printed.
    """
    progress = Progress(
        SpinnerColumn(),
        TextColumn('{task.description}'),
        TimeElapsedColumn(),
        TextColumn('{task.fields[state]}', markup=False),
        console=console,
    )
    environment = dict(os.environ)
    if len(trainings) > 1:  # their threads would wait for each other
        threads = max(1, os.cpu_count() // len(trainings))
        environment['OMP_NUM_THREADS'] = str(threads)
    with progress, ThreadPoolExecutor(len(trainings)) as pool:
        followers = [
            pool.submit(training.follow, progress, environment)
            for training in trainings
        ]
        return [follower.result() for follower in followers]
