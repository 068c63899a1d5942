# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The runs of tools/grid.py: one of tools/train.py for each pair."""

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import launch

# The first that is logged: the mean over classes where a data set's scores
# are reported so.
METRICS = ('single-label/recall', 'accuracy/top1')


class Pair(NamedTuple):
    """A learning rate, and a weight decay before it is divided by it."""

    lr: float
    weight_decay: float

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f'lr-{self.lr:g}_wd-{self.weight_decay:g}'

    @property
    def cfg_options(self) -> list[str]:
        """What it sets in the config."""
        optimizer = 'optim_wrapper.optimizer'
        return [
            f'{optimizer}.lr={self.lr:g}',
            f'{optimizer}.weight_decay={self.weight_decay / self.lr:g}',
        ]


class Outcome(NamedTuple):
    """What a run reached, in percent, or else why it has no score."""

    score: float | None = None
    metric: str = ''
    problem: str = 'not started'


Outcomes = Mapping[Pair, Outcome]


def best_pair(outcomes: Outcomes) -> Pair | None:
    """Return the pair of the highest score, of equals the first."""
    scored = [pair for pair, o in outcomes.items() if o.score is not None]
    return max(scored, key=lambda pair: outcomes[pair].score, default=None)


def read_outcome(folder: Path, metric: str | None) -> Outcome:
    """Read the score of a run from its last start.

    Args:
        folder (Path): The work directory of the run.
        metric (str, optional): Its name in the log; None takes the first of
            ``METRICS`` that is there.

    Raises:
        ValueError: A file is damaged, or the metric is not logged.
    """
    from mmscfs.results import last_validation, read_starts

    starts = read_starts(folder)
    if not starts:
        return Outcome()
    scores, problem = last_validation(starts[-1].cfg, starts[-1].lines)
    if problem:
        return Outcome(problem=problem)
    wanted = [metric] if metric else METRICS
    for name in wanted:
        if name in scores:
            return Outcome(scores[name], name, '')
    logged = ', '.join(name for name in scores if '/' in name)
    raise ValueError(
        f'{folder} has no {" or ".join(wanted)} in its log: set --metric to '
        f'one of {logged}'
    )


def make_command(args: argparse.Namespace, pair: Pair) -> list[str]:
    """Return the command that trains with a pair."""
    command = launch.make_command(
        'train', args.config, args.gpus, args.pretrained
    )
    if args.network:
        command += ['--network', args.network]
    # A pair that was interrupted begins anew.
    command += ['--work-dir', str(args.work_dir / pair.name), '--overwrite']
    # The pair's come last: of two settings of a key the last one counts.
    return [*command, '--cfg-options', *args.cfg_options, *pair.cfg_options]


def run_pair(args: argparse.Namespace, pair: Pair) -> str:
    """Run one pair, its output to train.log; return why it failed or ""."""
    folder = args.work_dir / pair.name
    problem = launch.run_logged(make_command(args, pair), folder / 'train.log')
    if problem:
        return problem
    result = find_result(args)
    if result is not None and result.is_file():
        content = json.loads(result.read_text(encoding='utf-8'))
        if content['work_dir'] == os.path.abspath(folder):
            # The next run would replace it.
            shutil.move(result, folder / result.name)
    return ''


def find_result(args: argparse.Namespace) -> Path | None:
    """Return the result file that each run writes beside the checkpoint."""
    from mmscfs.results import result_path

    if args.pretrained is None:
        return None
    return result_path(args.pretrained, Path(args.config).stem, args.network)
