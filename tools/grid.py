#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Search the learning rate and the weight decay of a fine-tuning.

Runs tools/train.py once for each pair, one after another, each in a folder
below the work directory, and shows what the pairs reached. Run the same
command again to continue: finished runs are not repeated. Without --lr and
--weight-decay it is the grid of SimCLR and BYOL for small data sets: 7
learning rates, and 7 weight decays or none, 56 runs. As there, the weight
decay is divided by the learning rate before the optimizer gets it.

A pair's score is that of its LAST validation, so the config's val_dataloader
decides what is chosen on. In our configs that is the test set, and the best
of many runs on the test set is optimistic. For an honest score hold out a
part of the training set (second example), then train with the chosen pair
once on all of it. Of the result files, the best run's ends up beside the
checkpoint, and every run's in its folder.
"""

import argparse
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from command_line import add_pretrained_options, make_parser
from launch import (
    Step,
    add_run_options,
    check_settings,
    commanded,
    read_report,
    run_steps,
    show_tables,
    write_report,
)

RATES = (0.0001, 0.0003162, 0.001, 0.003162, 0.01, 0.03162, 0.1)
DECAYS = (0.0, 1e-6, 3.162e-6, 1e-5, 3.162e-5, 1e-4, 3.162e-4, 1e-3)
# The first that is logged: the mean over classes where a data set's scores
# are reported so.
METRICS = ('single-label/recall', 'accuracy/top1')
NOTE = (
    'Scores in percent: the last validation, on the val split of the config. '
    'The optimizer gets the weight decay divided by the learning rate.'
)
OPTIMIZER = 'optim_wrapper.optimizer'
EXAMPLES = """
examples:
  # the protocol's grid, chosen on the test set
  python tools/grid.py \\
      configs/classification/finetune/resnet50_1xb256-finetune-coslr-20k_cifar10.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth
  # chosen on a tenth of the training set
  ... --cfg-options train_dataloader.dataset.indices=45000 \\
      val_dataloader.dataset.split=train val_dataloader.dataset.indices=-5000
  # Aircraft has a separate validation set
  ... --cfg-options train_dataloader.dataset.split=train \\
      val_dataloader.dataset.split=val
  # a few pairs, on 8 GPUs each; or only their commands, to queue them
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --gpus 8 --cfg-options \\
      train_dataloader.batch_size=32
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --dry-run
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument('config', help='config file')
    add_pretrained_options(parser)
    for option, values, text in (
        ('--lr', RATES, 'learning rates'),
        ('--weight-decay', DECAYS, 'weight decays'),
    ):
        parser.add_argument(
            option,
            type=float,
            nargs='+',
            default=values,
            metavar='X',
            help=f'{text} (default: '
            f'{" ".join(f"{value:g}" for value in values)})',
        )
    parser.add_argument(
        '--metric',
        help='what to choose by, the larger the better (default: '
        'single-label/recall if it is logged, else accuracy/top1)',
    )
    add_run_options(parser, 'grid_<config>')
    args = parser.parse_args(argv)
    for name in (args.config, args.pretrained):
        if name and not Path(name).is_file():
            parser.error(
                f'no file {name!r}: name a config below configs, and a '
                'checkpoint after --pretrained'
            )
    if args.network and not args.pretrained:
        parser.error('--network requires --pretrained')
    for lr in args.lr:
        if not 0 < lr < float('inf'):
            parser.error(f'--lr {lr:g} must be above 0')
    for decay in args.weight_decay:
        if not 0 <= decay < float('inf'):
            parser.error(f'--weight-decay {decay:g} must be 0 or more')
    args.work_dir = args.work_dir or Path(
        'work_dirs', f'grid_{Path(args.config).stem}'
    )
    return args


@dataclass(kw_only=True, eq=False)
class FineTuning(Step):
    """The run of a pair.

    Attributes:
        lr (float): The learning rate.
        weight_decay (float): Before it is divided by the learning rate.
        wanted (str, optional): The metric to choose by; None takes the first
            of ``METRICS`` that is logged.
        result (Path, optional): The result file beside the checkpoint.
        metric (str): The metric that was found.
        score (float, optional): Its value in percent.
    """

    lr: float
    weight_decay: float
    wanted: str | None
    result: Path | None
    metric: str = ''
    score: float | None = None

    def missing(self) -> str:
        """Read the score; say why there is none, "" if there is one.

        Raises:
            ValueError: A file is damaged, or the metric is not logged.
        """
        from mmscfs.results import read_log, read_starts

        if not read_starts(self.folder):
            return 'not started'
        scores, problem = read_log(self.folder).last_validation()
        if problem:
            return problem
        names = [self.wanted] if self.wanted else METRICS
        for name in names:
            if name in scores:
                self.metric, self.score = name, scores[name]
                return ''
        logged = ', '.join(name for name in scores if '/' in name)
        raise ValueError(
            f'{self.folder} has no {" or ".join(names)} in its log: set '
            f'--metric to one of {logged}'
        )

    def reached(self) -> str:
        """Say the score."""
        return f'{self.score:.2f}'

    def run(self, gpus: int | None) -> None:
        """Run it, and take its result file into its folder."""
        super().run(gpus)
        if self.problem or self.result is None or not self.result.is_file():
            return
        content = json.loads(self.result.read_text(encoding='utf-8'))
        if content['work_dir'] == os.path.abspath(self.folder):
            # The next run would replace it.
            shutil.move(self.result, self.folder / self.result.name)


class Grid:
    """A fine-tuning with each pair of learning rate and weight decay.

    Args:
        args (argparse.Namespace): Those of tools/grid.py.

    Raises:
        ValueError: The work directory holds another grid, or the config does
            not train and validate.
        OSError: A file cannot be read.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from mmengine.config import Config

        from mmscfs.results import result_path

        names = ('config', 'pretrained', 'network', 'cfg_options')
        self.settings = {name: getattr(args, name) for name in names}
        self.path = args.work_dir / 'grid.json'
        check_settings(self.path, read_report(self.path), self.settings)
        cfg = Config.fromfile(args.config)
        optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
        if 'lr' not in optimizer or not cfg.get('val_evaluator'):
            raise ValueError(
                f'{args.config} has no {OPTIMIZER}.lr or no val_evaluator: '
                'name a config that trains and validates, e.g. one below '
                'configs/classification/finetune'
            )
        stem, start = Path(args.config).stem, args.pretrained
        self.title = f'{stem} from {start or "random weights"}'
        self.result = start and result_path(start, stem, args.network)
        self.runs = []
        for lr, decay in product(
            sorted({*args.lr}), sorted({*args.weight_decay})
        ):
            name = f'lr-{lr:g}_wd-{decay:g}'
            run = FineTuning(
                name=name,
                config=args.config,
                folder=args.work_dir / name,
                # Of two with the same key the last one counts.
                settings=[
                    *args.cfg_options,
                    f'{OPTIMIZER}.lr={lr:g}',
                    f'{OPTIMIZER}.weight_decay={decay / lr:g}',
                ],
                start=start and Path(start),
                network=args.network,
                lr=lr,
                weight_decay=decay,
                wanted=args.metric,
                result=self.result,
            )
            self.runs.append(run)
        self.pending = [run for run in self.runs if run.missing()]

    def report(self, is_last: bool = False) -> int:
        """Write grid.json, .md and .csv; the best run's result is the grid's.

        Args:
            is_last (bool): Print the table too. Defaults to False.

        Returns:
            int: The exit code of a command: 1 if the last writing failed.

        Raises:
            OSError: Writing failed before.
        """
        from mmscfs.results.tables import Row, Table

        scored = [run for run in self.runs if run.score is not None]
        best = max(scored, key=lambda run: run.score, default=None)
        problems = {
            run.name: run.problem or run.missing()
            for run in self.runs
            if run.score is None
        }
        content = dict(self.settings, best=None)
        note = 'no score yet'
        if best is not None:
            pair = dict(lr=best.lr, weight_decay=best.weight_decay)
            content['best'] = pair
            note = f'best: {best.name}, {best.metric} {best.score:.2f}'
            if self.result and (best.folder / self.result.name).is_file():
                shutil.copyfile(best.folder / self.result.name, self.result)
        content['runs'] = [
            dict(
                lr=run.lr,
                weight_decay=run.weight_decay,
                score=run.score,
                metric=run.metric,
                problem=problems.get(run.name, ''),
                work_dir=run.name,
            )
            for run in self.runs
        ]
        write_report(self.path, content)
        rows: dict[float, dict[str, float | None]] = {}
        for run in self.runs:
            column = f'decay {run.weight_decay:g}'
            rows.setdefault(run.lr, {})[column] = run.score
        table = Table(
            self.title,
            note,
            ('lr',),
            tuple(rows[self.runs[0].lr]),
            [
                Row((f'{lr:g}',), scores, f'lr-{lr:g}_wd-*', True)
                for lr, scores in rows.items()
            ],
        )
        return show_tables(
            self.path.with_suffix('.md'),
            f'Grid: {self.title}',
            NOTE,
            [table] if best else [],
            problems,
            is_last,
        )


@commanded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: every run has a score, 1: some failed, 2: the grid cannot start, 130:
    stopped.
    """
    args = parse_args(argv)
    grid = Grid(args)
    if args.dry_run:
        for run in grid.pending:
            print(shlex.join(run.command(args.gpus)))
        return 0

    grid.report()
    run_steps(grid.pending, args.gpus, grid.report)
    code = grid.report(is_last=True)
    return code or int(any(run.score is None for run in grid.runs))


if __name__ == '__main__':
    raise SystemExit(main())
