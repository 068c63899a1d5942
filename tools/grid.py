#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Search the learning rate and the weight decay of a fine-tuning.

Runs tools/train.py once for each pair, each in a folder below the work
directory, and shows what the pairs reached. Run the same command again to
resume: finished runs are not repeated. Without --lr and --weight-decay it is
the grid of SimCLR and BYOL for small data sets: 7 learning rates, and 7 weight
decays or none, 56 runs. As there, the weight decay is divided by the learning
rate before the optimizer gets it.

A pair's score is that of its LAST validation, so the config's val_dataloader
decides what is chosen on. In our configs that is the test set, and the best
of many runs on the test set is optimistic. For an honest score hold out a
part of the training set (second example), then train with the chosen pair
once on all of it. The best run's result file ends up beside the checkpoint;
every run has one in its folder.
"""

import argparse
import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_end import commanded
from command_line import (
    add_pretrained_options,
    make_parser,
    number,
    read_config,
    read_settings,
)
from command_paths import config
from jobs import add_run_options, parse_run

if TYPE_CHECKING:
    from plan import Step

    from mmscfs.results.tables import Summary

RATES = (0.0001, 0.0003162, 0.001, 0.003162, 0.01, 0.03162, 0.1)
DECAYS = (0.0, 1e-6, 3.162e-6, 1e-5, 3.162e-5, 1e-4, 3.162e-4, 1e-3)
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
  # a pair at a time on each of four GPUs
  ... --devices 0 1 2 3
  # a few pairs, on 8 GPUs each; or only their commands, to queue them
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --gpus 8 --cfg-options \\
      train_dataloader.batch_size=32
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --dry-run
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument('config', type=config, help='config file')
    add_pretrained_options(parser)
    above = number(lambda x: 0 < x < math.inf, 'above 0')
    least = number(lambda x: 0 <= x < math.inf, '0 or more')
    for option, values, kind, text in (
        ('--lr', RATES, above, 'learning rates'),
        ('--weight-decay', DECAYS, least, 'weight decays'),
    ):
        parser.add_argument(
            option,
            type=kind,
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
    args = parse_run(parser, argv, 'grid')
    if args.network and not args.pretrained:
        parser.error('--network requires --pretrained')
    return args


def make_steps(args: argparse.Namespace) -> list['Step']:
    """Return a fine-tuning for each pair.

    Raises:
        ValueError: The config does not train and validate.
    """
    from plan import Step

    from mmscfs.results import schedule

    cfg = read_config(
        args.config, read_settings(args.cfg_options), check=False
    )
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if 'lr' not in optimizer or not cfg.get('val_evaluator'):
        raise ValueError(
            f'{args.config} has no {OPTIMIZER}.lr or no val_evaluator: '
            'name a config that trains and validates, e.g. one below '
            'configs/classification/finetune'
        )
    length, unit = schedule(cfg)
    return [
        Step(
            name=f'lr-{lr:g}_wd-{decay:g}',
            config=args.config,
            settings=[
                # Of two with the same key the last one counts.
                *args.cfg_options,
                f'{OPTIMIZER}.lr={lr:g}',
                f'{OPTIMIZER}.weight_decay={decay / lr:g}',
            ],
            goal='validation',
            length=length,
            unit=unit,
            start=args.pretrained,
            network=args.network,
            facts=dict(lr=lr, weight_decay=decay),
        )
        for lr, decay in product(
            sorted({*args.lr}), sorted({*args.weight_decay})
        )
    ]


def arrange(
    steps: Sequence['Step'], title: str, metric: str | None
) -> tuple['Summary', dict[str, Any]]:
    """Return the table of all pairs, and the best pair for the record.

    Raises:
        ValueError: The metric was not logged.
    """
    from plan import SCORES

    from mmscfs.results.tables import Row, Summary, Table

    names = [metric] if metric else SCORES
    done = [step for step in steps if not step.problem]
    scores = {step.name: step.score(names) for step in done}
    for step in done:
        if scores[step.name] is None:
            raise ValueError(
                f'{step.folder} has no {" or ".join(names)} in its log: set '
                f'--metric to one of {", ".join(step.metrics)}'
            )
    best = max(done, key=lambda step: scores[step.name][1], default=None)
    problems = keep_results(steps, best) if steps[0].start else []
    rows: dict[str, dict[str, float | None]] = {}
    for step in sorted(steps, key=lambda step: [*step.facts.values()]):
        lr, decay = step.facts.values()
        _, score = scores.get(step.name, ('', None))
        rows.setdefault(f'{lr:g}', {})[f'decay {decay:g}'] = score
    tables = []
    if best is not None:
        name, score = scores[best.name]
        note = f'best: {best.name}, {name} {score:.2f}'
        columns = tuple(dict.fromkeys(c for row in rows.values() for c in row))
        lines = [
            Row((lr,), row, f'lr-{lr}_wd-*', True) for lr, row in rows.items()
        ]
        tables.append(Table(title, note, ('lr',), columns, lines))
    summary = Summary(f'Grid: {title}', NOTE, tables, problems)
    return summary, dict(best=best and best.facts)


def keep_results(steps: Sequence['Step'], best: 'Step | None') -> list[str]:
    """Keep each pair's result file, and put the best one's at its place.

    They all write to the same place, beside the checkpoint. Returns what is
    to be said if the best one's was lost.
    """
    from mmscfs.checkpoint import write_atomically

    shared = steps[0].result
    if shared.is_file():
        owner = json.loads(shared.read_text(encoding='utf-8'))['work_dir']
        for step in steps:
            if owner == str(step.folder.absolute()):
                write_atomically(
                    step.folder / shared.name, shared.read_bytes()
                )
    kept = [step for step in steps if (step.folder / shared.name).is_file()]
    if best is None or not kept:
        return []
    if best in kept:
        write_atomically(shared, (best.folder / shared.name).read_bytes())
        return []
    shared.unlink(missing_ok=True)  # of another pair
    return [
        f'{best.name}: another pair ended at the same time and replaced its '
        f'result file: remove {best.folder}, and repeat the command'
    ]


@commanded('the same command resumes')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: every run has a score, 1: some failed, 2: the grid cannot start, 130:
    stopped.
    """
    args = parse_args(argv)
    from plan import Plan

    names = ('config', 'pretrained', 'network', 'cfg_options')
    start = args.pretrained or 'random weights'
    title = f'{Path(args.config).stem} from {start}'
    plan = Plan(
        args.work_dir / 'grid.json',
        {name: getattr(args, name) for name in names},
        make_steps(args),
        partial(arrange, title=title, metric=args.metric),
    )
    return plan.carry_out(args)


if __name__ == '__main__':
    raise SystemExit(main())
