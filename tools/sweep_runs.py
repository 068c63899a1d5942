# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The runs of tools/sweep.py: pre-trainings, and what evaluates them."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import launch
from mmengine.config import Config
from sweep_list import SweepList, Variant, merged_config, share_out

from mmscfs.results import read_result, result_path, schedule
from mmscfs.results.detection import read_run
from mmscfs.results.entries import Entry

SAVED = r'(epoch|iter)_(\d+)'


class Run(NamedTuple):
    """A variant with a seed, and its folder."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


class Step(NamedTuple):
    """One command of a run.

    Attributes:
        run (Run): The run.
        kind (str): "pre-training", "evaluation" or "detection".
        config (str): The config.
        cfg (Config): The same with ``words`` in it.
        words (tuple[str, ...]): Settings, KEY=VALUE each.
        folder (Path): Its work directory.
        checkpoint (Path): The last one of the pre-training, perhaps not yet
            there.
    """

    run: Run
    kind: str
    config: str
    cfg: Config
    words: tuple[str, ...]
    folder: Path
    checkpoint: Path

    @property
    def name(self) -> str:
        """What it is called in lines of text."""
        is_first = self.kind == 'pre-training'
        return f'{self.run.name}, {self.kind if is_first else self.stem}'

    @property
    def stem(self) -> str:
        """The name of the config."""
        return Path(self.config).stem

    @property
    def tool(self) -> str:
        """Whether tools/train.py or tools/test.py runs it."""
        return 'train' if self.cfg.get('train_cfg') else 'test'

    @property
    def log(self) -> Path:
        """What the command writes."""
        return self.folder / f'{self.tool}.log'

    @property
    def result(self) -> Path:
        """What an evaluation writes beside the checkpoint."""
        return result_path(self.checkpoint, self.stem)

    def is_done(self) -> bool:
        """Tell whether there is nothing left to do."""
        if self.kind == 'pre-training':
            return newest(self.folder)[0] == schedule(self.cfg)[0]
        if not self.checkpoint.is_file():
            return False
        if self.kind == 'evaluation':
            return self.has_result()
        try:
            return not read_run(self.folder).problem and self.is_newer(
                self.folder / 'last_checkpoint'
            )
        except ValueError:  # it has not begun
            return False

    def has_result(self) -> bool:
        """Tell whether its result file is of this step and checkpoint."""
        if not self.is_newer(self.result):
            return False
        try:
            folder = Path(read_result(self.result).work_dir)
        except ValueError:  # damaged, or of another version: made again
            return False
        return folder.parts[-2:] == self.folder.absolute().parts[-2:]

    def is_newer(self, path: Path) -> bool:
        """Tell whether a file is there and newer than the checkpoint."""
        return path.is_file() and (
            path.stat().st_mtime >= self.checkpoint.stat().st_mtime
        )

    def entry(self) -> Entry:
        """Return the result of an evaluation for the tables."""
        result = read_result(self.result)
        return Entry(self.result, result, self.run.variant.name, self.run.seed)

    def score(self) -> str:
        """Say what a step that is done has reached."""
        if self.kind == 'evaluation' and self.entry().score is not None:
            return f'{self.entry().score:.2f}'
        return 'done'

    def progress(self) -> str:
        """Say how far a step is that is not done."""
        total, unit = schedule(self.cfg)
        reached = newest(self.folder)[0]
        text = 'not started'
        if reached or self.log.is_file():
            text = (
                f'saved {reached} of {total} {unit}' if total else 'no score'
            )
        reason = launch.read_reason(self.log)
        return f'{text}: {reason} (all of it: {self.log})' if reason else text

    def command(self, gpus: int | None) -> list[str]:
        """Return the command line; what was interrupted is resumed."""
        is_first = self.kind == 'pre-training'
        command = launch.make_command(
            self.tool,
            self.config,
            gpus,
            None if is_first else str(self.checkpoint),
        )
        command += ['--work-dir', str(self.folder)]
        if self.tool == 'train':
            saved = self.resumable()
            command += ['--resume', str(saved)] if saved else ['--overwrite']
        return (
            [*command, '--cfg-options', *self.words]
            if self.words
            else (command)
        )

    def resumable(self) -> Path | None:
        """Return the checkpoint to go on from, None to begin.

        Not the last one, after which nothing would be evaluated any more,
        nor that of a training from an earlier pre-training.
        """
        total = schedule(self.cfg)[0]
        number, saved = newest(self.folder, total - 1)
        if saved is None or self.kind == 'pre-training':
            return saved
        return saved if self.is_newer(saved) else None

    def run_command(self, gpus: int | None) -> str:
        """Run it; return why it failed or ""."""
        problem = launch.run_logged(self.command(gpus), self.log)
        if not problem and not self.is_done():
            problem = f'it left no result behind (see {self.log})'
        return problem


def newest(
    folder: Path, limit: float = float('inf')
) -> tuple[int, Path | None]:
    """Return the newest whole checkpoint, and its number; 0 if there is none.

    What is newer than ``last_checkpoint`` says may be torn.

    Args:
        folder (Path): A work directory.
        limit (float): The highest number. Defaults to any.
    """
    last = folder / 'last_checkpoint'
    if not last.is_file():
        return 0, None
    found = re.search(rf'{SAVED}\.pth$', last.read_text().strip())
    limit = min(limit, int(found[2])) if found else 0
    saved = [(0, None)]
    for path in folder.glob('*.pth'):
        name = re.fullmatch(SAVED, path.stem)
        if name and int(name[2]) <= limit:
            saved.append((int(name[2]), path))
    return max(saved, key=lambda item: item[0])


def find_runs(
    sweep: SweepList, args: argparse.Namespace, started: bool = False
) -> list[Run]:
    """Return the runs that a call is about, all of a seed together.

    Args:
        sweep (SweepList): The list.
        args (argparse.Namespace): With ``work_dir``, ``variants``, ``seeds``.
        started (bool): With those that earlier calls have begun. Defaults to
            False.
    """
    wanted = args.variants or [variant.name for variant in sweep.variants]
    seeds = {*args.seeds}
    if started:
        for path in args.work_dir.glob('*_seed-*'):
            text = path.name.rpartition('_seed-')[2]
            seeds |= {int(text)} if text.isdecimal() else set()
    runs = []
    for seed in sorted({*seeds, 0}):
        suffix = f'_seed-{seed}' if seed else ''
        for variant in sweep.variants:
            folder = args.work_dir / f'{variant.name}{suffix}'
            is_wanted = variant.name in wanted and seed in args.seeds
            if is_wanted or (started and folder.is_dir()):
                runs.append(Run(variant, seed, folder))
    return runs


def make_steps(
    sweep: SweepList, runs: Sequence[Run], args: argparse.Namespace
) -> list[Step]:
    """Return what there is to do for some runs, in order.

    Raises:
        ValueError: A setting does not fit a config.
    """
    first = share_out(args.cfg_options, [v.config for v in sweep.variants])
    later = share_out(
        args.eval_cfg_options,
        [c for v in sweep.variants for c in (*v.evaluations, *v.detection)],
    )
    steps = []
    for run in runs:
        variant = run.variant
        words = (
            # Of two of a key the last one counts.
            *variant.defaults,
            *first[variant.config],
            *variant.cfg_options,
            f'randomness.seed={run.seed}',
        )
        cfg = merged_config(variant.config, words)
        total, unit = schedule(cfg)
        name = 'epoch' if unit == 'epochs' else 'iter'
        checkpoint = run.folder / f'{name}_{total}.pth'
        kinds = [('pre-training', variant.config, words, run.folder)]
        if not args.skip_evaluations:
            for kind, configs in (
                ('evaluation', variant.evaluations),
                ('detection', variant.detection),
            ):
                for config in configs:
                    folder = run.folder / Path(config).stem
                    kinds.append((kind, config, tuple(later[config]), folder))
        for kind, config, words, folder in kinds:
            cfg = merged_config(config, words)
            step = Step(run, kind, config, cfg, words, folder, checkpoint)
            steps.append(step)
    return steps


def run_steps(
    pending: Sequence[Step],
    gpus: int | None,
    problems: dict[str, str],
    report: Callable[[], object],
) -> None:
    """Run steps; those after a pre-training that failed are passed over.

    Args:
        pending (Sequence[Step]): Those that are not done, in order.
        gpus (int, optional): Number of processes of each.
        problems (dict[str, str]): Gets why a step failed, by its name.
        report (Callable): Called before the first step and after each.

    Raises:
        OSError: A file cannot be written.
    """
    report()
    progress = launch.make_progress()
    task = progress.add_task('', total=len(pending))
    with progress:
        for step in pending:
            progress.update(task, description=step.name)
            is_first = step.kind == 'pre-training'
            if is_first or step.checkpoint.is_file():
                if problem := step.run_command(gpus):
                    problems[step.name] = problem
                report()
                progress.console.print(
                    f'{step.name}: {problem or step.score()}',
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            progress.advance(task)
