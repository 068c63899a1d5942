# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The steps of tools/sweep.py: pre-trainings, and what evaluates them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launch import Step, read_reason
from sweep_list import SweepList, Variant, merged_config, share_out

from mmscfs.results import (
    newest_checkpoint,
    read_result,
    result_path,
    schedule,
)
from mmscfs.results.detection import read_run
from mmscfs.results.evaluations import read_entry
from mmscfs.results.paper import Entry


class Run(NamedTuple):
    """A variant with a seed, and its folder."""

    variant: Variant
    seed: int
    folder: Path


@dataclass(kw_only=True, eq=False)
class SweepStep(Step):
    """A step of a run: after the pre-training, unless it is that itself.

    Attributes:
        origin (Run): The run.
        end (str): Name of the checkpoint at the end of its training.
    """

    origin: Run
    end: str

    @property
    def stem(self) -> str:
        """The name of the config."""
        return Path(self.config).stem

    def is_done(self) -> bool:
        """Tell whether there is nothing left to do."""
        raise NotImplementedError

    def saved(self) -> str:
        """Return the name of the checkpoint that it saved last, or ""."""
        saved = newest_checkpoint(self.folder)
        return saved.name if saved else ''

    def is_newer(self, path: Path) -> bool:
        """Tell whether a file is there and newer than the pre-training."""
        assert self.start is not None
        return (
            path.is_file()
            and self.start.is_file()
            and path.stat().st_mtime >= self.start.stat().st_mtime
        )

    def missing(self) -> str:
        """Say how far it is, "" if it is done."""
        if self.is_done():
            return ''
        text = 'no result' if self.log.is_file() else 'not started'
        if saved := self.saved():
            text = f'not finished: saved {saved}, ends with {self.end}'
        reason = read_reason(self.log)
        return f'{text}: {reason} (full log: {self.log})' if reason else text

    def resume(self) -> list[str]:
        """Return the options that continue a training on a pre-training."""
        if not self.is_newer(self.folder / 'last_checkpoint'):
            return ['--overwrite']  # it started from an earlier one
        if self.saved() != self.end:
            return ['--resume']
        # Resumed at its end it would not be evaluated again.
        kind = self.end.partition('_')[0]
        earlier = {
            int(path.stem.removeprefix(f'{kind}_')): str(path)
            for path in self.folder.glob(f'{kind}_*.pth')
            if path.name != self.end
        }
        if not earlier:
            return ['--overwrite']
        return ['--resume', earlier[max(earlier)]]


class Pretraining(SweepStep):
    """The first step of a run."""

    def is_done(self) -> bool:
        """Tell whether the last checkpoint is there, and whole."""
        return self.saved() == self.end and (self.folder / self.end).is_file()

    def resume(self) -> list[str]:
        """Return the option that continues from the newest checkpoint."""
        return ['--resume']


class Evaluation(SweepStep):
    """An evaluation that writes a result file beside the checkpoint."""

    @property
    def result(self) -> Path:
        """The result file."""
        assert self.start is not None
        return result_path(self.start, self.stem)

    def is_done(self) -> bool:
        """Tell whether the result file is of this step and checkpoint."""
        if not self.is_newer(self.result):
            return False
        try:
            folder = Path(read_result(self.result).work_dir)
        except ValueError:  # damaged, or of another version: made again
            return False
        return folder.parts[-2:] == self.folder.absolute().parts[-2:]

    def entry(self) -> Entry:
        """Return the result for the tables."""
        result = read_result(self.result)
        variant, seed, _ = self.origin
        return read_entry(self.result, result, variant.name, seed)

    def reached(self) -> str:
        """Say the score."""
        score = self.entry().scores.get('score')
        return 'done' if score is None else f'{score:.2f}'


class Detection(SweepStep):
    """A training of a detector."""

    def is_done(self) -> bool:
        """Tell whether its last validation has scores."""
        try:
            problem = read_run(self.folder).problem
        except ValueError:  # it has not started
            return False
        return not problem and self.is_newer(self.folder / 'last_checkpoint')

    def entry(self) -> Entry:
        """Return the result for the tables."""
        variant, seed, _ = self.origin
        run = read_run(self.folder)
        return run._replace(variant=variant.name, seed=seed)


def make_step(
    kind: type[SweepStep],
    run: Run,
    config: str,
    settings: Sequence[str],
    start: Path | None,
) -> SweepStep:
    """Return a step.

    Raises:
        ValueError: The settings do not fit the config.
    """
    cfg = merged_config(config, settings)
    length, unit = schedule(cfg)
    name = 'pre-training' if start is None else Path(config).stem
    return kind(
        name=f'{run.folder.name}, {name}',
        config=config,
        folder=run.folder if start is None else run.folder / name,
        settings=settings,
        tool='train' if cfg.get('train_cfg') else 'test',
        start=start,
        origin=run,
        end=f'{"epoch" if unit == "epochs" else "iter"}_{length}.pth',
    )


def make_steps(sweep: SweepList, args: argparse.Namespace) -> list[SweepStep]:
    """Return the steps of all variants, all of a seed together.

    Seeds are those of the command and those that earlier calls have started.

    Args:
        sweep (SweepList): The list.
        args (argparse.Namespace): Those of the command.

    Raises:
        ValueError: A setting does not fit a config.
    """
    first = share_out(args.cfg_options, [v.config for v in sweep.variants])
    later = share_out(
        args.eval_cfg_options,
        [c for v in sweep.variants for c in (*v.evaluations, *v.detection)],
    )
    started = (path.name for path in args.work_dir.glob('*_seed-*'))
    numbers = (name.rpartition('_seed-')[2] for name in started)
    seeds = {0, *args.seeds, *(int(n) for n in numbers if n.isdecimal())}
    steps = []
    for seed in sorted(seeds):
        for variant in sweep.variants:
            name = variant.name + (f'_seed-{seed}' if seed else '')
            run = Run(variant, seed, args.work_dir / name)
            settings = (
                # Of two with the same key the last one counts.
                *variant.defaults,
                *first[variant.config],
                *variant.cfg_options,
                f'randomness.seed={seed}',
            )
            pretraining = make_step(
                Pretraining, run, variant.config, settings, None
            )
            steps.append(pretraining)
            if args.skip_evaluations:
                continue
            start = run.folder / pretraining.end
            steps += [
                make_step(kind, run, config, later[config], start)
                for kind, configs in (
                    (Evaluation, variant.evaluations),
                    (Detection, variant.detection),
                )
                for config in configs
            ]
    return steps
