# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run the commands that the demo consists of, behind progress bars."""

import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

ROOT = Path(__file__).resolve().parent.parent
ITERATION = re.compile(
    r'(?:Epoch|Iter)\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/(\d+)\]'
    r'.* loss: ([\d.]+)'
)
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
        title (str): Of its progress bar.
        config (str): The config, below the repository.
        work_dir (Path): Gets ``train.log`` as well.
        options (list[str]): More options of tools/train.py.
        cfg_options (list[str]): KEY=VALUE each.
        epochs (int): Number of epochs, for the bar; 1 where the log counts
            iterations.
    """

    title: str
    config: str
    work_dir: Path
    options: list[str]
    cfg_options: list[str]
    epochs: int

    @property
    def command(self) -> list[str]:
        """The command line."""
        command = [sys.executable, 'tools/train.py', self.config]
        command += ['--work-dir', str(self.work_dir), '--overwrite']
        command += self.options
        return command + ['--cfg-options', *self.cfg_options]


def train(*trainings: Training) -> list[Path]:
    """Run trainings side by side, each behind a progress bar.

    Returns:
        list[Path]: The last checkpoint of each.

    Raises:
        SystemExit: One failed; its last words are printed.
    """
    progress = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn('loss {task.fields[loss]}'),
        console=console,
    )
    environment = dict(os.environ)
    if len(trainings) > 1:  # their threads would wait for each other
        threads = max(1, os.cpu_count() // len(trainings))
        environment['OMP_NUM_THREADS'] = str(threads)
    pool = ThreadPoolExecutor(len(trainings))
    with progress, pool, ExitStack() as stack:
        followers = []
        for training in trainings:
            show(training.command)
            training.work_dir.mkdir(parents=True, exist_ok=True)
            process = subprocess.Popen(
                training.command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.terminate)  # when another one fails
            followers.append(pool.submit(follow, training, process, progress))
        for follower in as_completed(followers):
            try:
                follower.result()
            except RuntimeError as error:
                raise SystemExit(str(error)) from error
    return [
        Path((training.work_dir / 'last_checkpoint').read_text().strip())
        for training in trainings
    ]


def follow(
    training: Training, process: subprocess.Popen, progress: Progress
) -> None:
    """Keep the output of a training, and move its bar by it.

    Raises:
        RuntimeError: The training failed; with its last words.
    """
    log_path = training.work_dir / 'train.log'
    task = progress.add_task(training.title, total=None, loss='-')
    tail = []
    with process, open(log_path, 'w', encoding='utf-8') as log:
        for line in process.stdout:
            log.write(line)
            tail = [*tail[-24:], line]
            if found := ITERATION.search(line):
                epoch = int(found[1] or 1)
                iteration, length = int(found[2]), int(found[3])
                progress.update(
                    task,
                    total=training.epochs * length,
                    completed=(epoch - 1) * length + iteration,
                    loss=found[4],
                )
    if process.wait():
        raise RuntimeError(
            f'{"".join(tail)}\nthe training failed; all of it: {log_path}'
        )
    # The log names every tenth iteration only.
    progress.update(task, completed=progress.tasks[task].total)
