# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Plans of trainings and tests, for sweep.py, grid.py and label_curve.py.

A plan is a list of steps, each a command of tools/train.py or test.py. What
is done is not repeated, what was interrupted is resumed, what failed is named
with its log, and the others continue, several side by side if there are
devices for them. A command that plans lists its steps, and puts what they
have reached into tables.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import Job, end, read_reason
from rich.progress import Progress, TimeElapsedColumn

from mmscfs.checkpoint import write_atomically
from mmscfs.engine.resume.chooser import read_saved_run
from mmscfs.results import (
    RunLog,
    newest_checkpoint,
    read_result,
    read_starts,
    result_path,
)
from mmscfs.results.tables import Summary

TOOLS = Path(__file__).resolve().parent
# What a record of other code, or a damaged one, raises.
UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
# What an evaluation is known by: the first of these that it logs. The mean
# over classes comes first: it is logged where it is what is reported.
SCORES = (
    *('single-label/recall', 'accuracy/top1', 'knn/top1', 'linear/top1'),
    *('svm/mAP', 'coco/bbox_mAP', 'pascal_voc/mAP'),
)
Metrics = dict[str, float | None]
PAUSE = 0.2  # seconds between two looks at what runs


@dataclass(kw_only=True, eq=False)
class Step:
    """One command of tools/train.py, or of test.py if its length is 0.

    Attributes:
        name (str): What it is called; its folder below the plan's.
        config (str): The config.
        settings (list[str]): For ``--cfg-options``, KEY=VALUE each.
        goal (str): What is there when it is done: the "checkpoint" or the
            "validation" at the end of its training, or the file with its
            "result".
        length (int): Of its training, in ``unit``.
        unit (str): "epochs" or "iterations".
        start (Step | str, optional): For ``--pretrained``: a checkpoint, or
            the step that makes it.
        network (str, optional): For ``--network``.
        facts (dict): What the tables are to say of it.
        metrics (dict): What it has reached.
        problem (str): Why it is not done, "" if it is.
        failure (str): Why it failed in this call, else "".
        folder (Path): Its work directory, which the plan sets.
    """

    name: str
    config: str
    settings: list[str]
    goal: str
    length: int = 0
    unit: str = 'epochs'
    start: 'Step | str | None' = None
    network: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    problem: str = 'not started'
    failure: str = ''
    folder: Path = Path()

    @property
    def log(self) -> Path:
        """What the command prints."""
        return self.folder / ('train.log' if self.length else 'test.log')

    @property
    def is_waiting(self) -> bool:
        """Whether the step that it starts from is not done."""
        return isinstance(self.start, Step) and bool(self.start.problem)

    @property
    def pretrained(self) -> Path | None:
        """The checkpoint that it starts from."""
        if isinstance(self.start, Step):
            return self.start.checkpoint
        return Path(self.start) if self.start else None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint at its end; until then its usual name."""
        newest = newest_checkpoint(self.folder)
        if newest and self.position() >= self.length:
            return newest
        kind = 'epoch' if self.unit == 'epochs' else 'iter'
        return self.folder / f'{kind}_{self.length}.pth'

    def position(self) -> float:
        """Return how far its newest checkpoint is, in ``unit``.

        The checkpoint tells, not its name: a training by epochs may save by
        iterations.
        """
        newest = newest_checkpoint(self.folder)
        try:
            saved = newest and read_saved_run(newest)
        except ValueError:  # damaged: --resume takes an earlier one, and warns
            saved = None
        if not saved:
            return 0
        length = 1 if self.unit == 'iterations' else saved.epoch_length
        return saved.iteration / length

    def is_outdated(self, path: Path) -> bool:
        """Whether a file is older than what the step it starts from made."""
        if not isinstance(self.start, Step) or self.is_waiting:
            return False
        start = self.start.checkpoint
        return path.stat().st_mtime < start.stat().st_mtime

    def look(self) -> None:
        """Set ``metrics`` and ``problem``."""
        if self.failure:
            return
        try:
            self.metrics, self.problem = self.reached()
        except ValueError as error:  # a damaged file: it is made again
            self.metrics, self.problem = {}, str(error)
        if self.problem and (reason := read_reason(self.log)):
            self.problem += f': {reason} (full log: {self.log})'

    def reached(self) -> tuple[Metrics, str]:
        """Return its metrics, and what is missing, or ""; may raise."""
        if isinstance(self.start, Step) and self.is_waiting:
            return {}, f'waits for {self.start.name}'
        if self.goal == 'validation' and (starts := read_starts(self.folder)):
            run = RunLog(self.folder, starts)
            if not self.is_outdated(run.trained[-1].folder):
                found, problem = run.last_validation()
                # "/": neither times nor positions.
                return {k: v for k, v in found.items() if '/' in k}, problem
        elif self.goal == 'result' and self.result.is_file():
            result = read_result(self.result)
            is_own = result.work_dir.endswith(f'/{self.name}')
            if is_own and not self.is_outdated(self.result):
                return result.metrics, ''
        elif self.goal == 'checkpoint' and self.position() >= self.length:
            return {}, ''
        if self.length and (saved := self.position()):
            total = f'{self.length} {self.unit}'
            return {}, f'not finished: saved {saved:.4g} of {total}'
        return {}, 'no result' if self.log.is_file() else 'not started'

    @property
    def result(self) -> Path:
        """The file of an evaluation, beside the checkpoint."""
        stem = Path(self.config).stem
        if self.pretrained is None:
            return self.folder / f'{stem}.json'
        return result_path(self.pretrained, stem, self.network)

    def score(self, names: Sequence[str] = SCORES) -> tuple[str, float] | None:
        """Return the first of some metrics that there is, and its value."""
        for name in names:
            if (value := self.metrics.get(name)) is not None:
                return name, value
        return None

    @property
    def reading(self) -> str:
        """What to print when it is done: its score."""
        name, score = self.score() or ('done', None)
        return name if score is None else f'{name} {score:.3f}'

    def command(self, gpus: int | None) -> list[str]:
        """Return the command line; without ``gpus`` it has no launcher."""
        start = ['--pretrained', str(self.pretrained)] if self.start else []
        tool = self.log.stem
        script = str(TOOLS / f'dist_{tool}.sh')
        if gpus is None:
            python = [sys.executable, str(TOOLS / f'{tool}.py')]
            command = [*python, self.config, *start]
        elif tool == 'test':  # its checkpoint has no option
            command = [script, self.config, *start[1:], str(gpus)]
        else:
            command = [script, self.config, str(gpus), *start]
        if self.network:
            command += ['--network', self.network]
        command += ['--work-dir', str(self.folder)]
        if self.length:
            newest = newest_checkpoint(self.folder)
            # Resumed at its end it would not be evaluated again.
            repeats = newest and (
                self.position() >= self.length or self.is_outdated(newest)
            )
            command.append('--overwrite' if repeats else '--resume')
        if self.settings:
            command += ['--cfg-options', *self.settings]
        return command

    def entry(self) -> dict[str, Any]:
        """Return what the record of a plan has of it."""
        start = self.start.name if isinstance(self.start, Step) else self.start
        entry = vars(self) | dict(start=start)
        for name in ('name', 'failure', 'folder'):
            del entry[name]
        return entry


Arrange = Callable[[Sequence[Step]], tuple[Summary, dict[str, Any]]]


class Plan:
    """The steps in a folder, also those of earlier calls.

    Args:
        path (Path): The record, a JSON file. Tables are written beside it.
        settings (dict): What all calls in this folder must agree in.
        steps (Sequence[Step]): What this call is about, each behind the one
            that it starts from.
        arrange (Callable): Makes tables of all steps, and facts for the
            record.

    Raises:
        ValueError: The record is damaged, or of other settings.
        OSError: It cannot be read.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        steps: Sequence[Step],
        arrange: Arrange,
    ) -> None:
        self.path, self.wanted, self.arrange = path, steps, arrange
        self.steps: dict[str, Step] = {}
        new = {step.name: step for step in steps}
        try:
            known = read_record(path)
            before = known.get('settings', {})
            for name, entry in known.get('steps', {}).items():
                start = self.steps.get(entry['start'], entry['start'])
                old = entry | dict(start=start, problem='not started')
                self.steps[name] = new.get(name) or Step(name=name, **old)
        except UNUSABLE as error:
            raise ValueError(
                f'{path} is damaged ({error}): remove it, or name another '
                '--work-dir'
            ) from error
        for name, value in settings.items():
            if before.get(name, value) != value:
                raise ValueError(
                    f'--work-dir {path.parent} holds the {path.stem} of '
                    f'{name}={before[name]!r}, not {value!r}: choose another '
                    'folder'
                )
        self.settings = before | settings
        self.steps |= new
        for step in self.steps.values():
            step.folder = path.parent / step.name
        self.look()

    def look(self) -> None:
        """See what has been done since, in this call or another one."""
        for step in self.steps.values():
            if step.problem:
                step.look()

    def carry_out(self, args: argparse.Namespace) -> int:
        """Run the steps that are not done; return a command's exit code.

        Args:
            args (Namespace): Of :func:`jobs.parse_run`. Has ``gpus`` (the
                processes of each; None without a launcher), ``dry_run`` and
                ``lanes``, one for each step that may run at the same time.
        """
        pending = [step for step in self.wanted if step.problem]
        if args.dry_run:
            for step in pending:
                print(shlex.join(step.command(args.gpus)))
            return 0
        self.write()
        running: dict[Step, tuple[Job, Mapping[str, str]]] = {}
        free = [*args.lanes]
        columns = (*Progress.get_default_columns(), TimeElapsedColumn())
        with Progress(*columns) as progress:
            task = progress.add_task('', total=len(pending))
            try:
                while running or not all(s.is_waiting for s in pending):
                    ready = [s for s in pending if not s.is_waiting]
                    for step in ready[: len(free)]:
                        pending.remove(step)
                        job = Job(step.command(args.gpus), step.log, free[0])
                        running[step] = job, free.pop(0)
                    names = ', '.join(step.name for step in running)
                    progress.update(task, description=names)
                    time.sleep(PAUSE)
                    for step, (job, lane) in [*running.items()]:
                        if (failure := job.outcome()) is None:
                            continue
                        del running[step]
                        free.append(lane)
                        step.failure = failure
                        step.problem = failure or step.problem
                        self.look()
                        self.write()
                        progress.console.print(
                            f'{step.name}: {step.problem or step.reading}',
                            highlight=False,
                            markup=False,
                            soft_wrap=True,
                        )
                        progress.advance(task)
            except BaseException:
                end(job for job, _ in running.values())
                raise
        return self.write(is_last=True)

    def write(self, is_last: bool = False) -> int:
        """Write the record and the tables; print them the last time.

        Then the exit code is 1 if a step is not done, or writing failed.
        """
        summary, facts = self.arrange([*self.steps.values()])
        entries = {name: step.entry() for name, step in self.steps.items()}
        more = read_record(self.path)  # of other calls at the same time
        settings = more.get('settings', {}) | self.settings
        steps = more.get('steps', {}) | entries
        record = facts | dict(settings=settings, steps=steps)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=2)
        write_atomically(self.path, f'{text}\n'.encode())
        problems = {
            step.name: step.problem
            for step in self.steps.values()
            if step.problem and not step.is_waiting
        }
        summary.problems.extend(f'{k}: {v}' for k, v in problems.items())
        path = self.path.with_suffix('.md')
        if is_last:
            code = summary.publish(path, '--work-dir')
            wanted = self.wanted or self.steps.values()
            return code or int(any(step.problem for step in wanted))
        summary.write(path)
        return 0


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a plan, empty if it is not there."""
    return json.loads(path.read_text()) if path.is_file() else {}
