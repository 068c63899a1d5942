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
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch import commanded, make_parser, run_steps

RATES = (0.0001, 0.0003162, 0.001, 0.003162, 0.01, 0.03162, 0.1)
DECAYS = (0.0, 1e-6, 3.162e-6, 1e-5, 3.162e-5, 1e-4, 3.162e-4, 1e-3)
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
    parser.add_argument(
        '--pretrained',
        metavar='CHECKPOINT',
        help='as in tools/train.py (default: random weights)',
    )
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help='which network of --pretrained (default: the teacher where '
        'there is one)',
    )
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
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help='for the runs and the table (default: work_dirs/grid_<config>)',
    )
    args = parser.parse_args(argv)
    for name in (args.config, args.pretrained):
        if name and not Path(name).is_file():
            parser.error(
                f'no file {name!r}: name a config below configs, and a '
                'checkpoint after --pretrained'
            )
    if args.network and not args.pretrained:
        parser.error('--network selects a network of --pretrained: add that')
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


@commanded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: every run has a score, 1: some failed, 2: the grid cannot start, 130:
    stopped.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from grid_runs import Grid

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
