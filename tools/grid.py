#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Search the learning rate and the weight decay of a fine-tuning.

Runs tools/train.py once for each pair, one after another, each in a folder of
its own below the work directory, and shows what the pairs reached. Called
again it goes on: finished runs are not repeated. Without --lr and
--weight-decay it is the grid of SimCLR and BYOL for small data sets: 7
learning rates, and 7 weight decays or none, 56 runs. As there, the weight
decay is divided by the learning rate before the optimiser gets it.

A pair's score is that of its LAST validation, so the config's val_dataloader
decides what is chosen on. In our configs that is the test set, and the best
of many runs on the test set is optimistic. For an honest score hold out a
part of the training set (second example), then train with the chosen pair
once on all of it. Of the result files, the best run's ends up beside the
checkpoint, and every run's in its folder.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from grid_report import NOTE, to_table, write_report
from grid_runs import (
    METRICS,
    Outcome,
    Outcomes,
    Pair,
    best_pair,
    find_result,
    make_command,
    read_outcome,
    run_pair,
)
from launch import check_settings, make_progress, read_report
from rich.console import Console

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
  # Aircraft has a validation set of its own
  ... --cfg-options train_dataloader.dataset.split=train \\
      val_dataloader.dataset.split=val
  # a few pairs, on 8 GPUs each; or only their commands, to queue them
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --gpus 8 --cfg-options \\
      train_dataloader.batch_size=32
  ... --lr 0.01 0.1 --weight-decay 0 1e-5 --dry-run
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        help='what to choose by, the larger the better (default: the first '
        f'of {", ".join(METRICS)} that the config logs)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help='for the runs, grid.json and grid.md (default: '
        'work_dirs/grid_<config>)',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        metavar='N',
        help='run tools/dist_train.sh with this many processes, each with '
        "the config's batch size",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='more settings of the config, the same for every run',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='only print the commands'
    )
    args = parser.parse_args(argv)
    for name in (args.config, args.pretrained):
        if name and not Path(name).is_file():
            parser.error(
                f'no file {name!r}: name a config below configs, and a '
                'checkpoint after --pretrained'
            )
    if args.network and not args.pretrained:
        parser.error('--network says which network of --pretrained to take')
    for lr in args.lr:
        if not 0 < lr < float('inf'):
            parser.error(f'--lr {lr:g} must be above 0')
    for decay in args.weight_decay:
        if not 0 <= decay < float('inf'):
            parser.error(f'--weight-decay {decay:g} must be 0 or above')
    if args.gpus is not None and args.gpus < 1:
        parser.error(f'--gpus {args.gpus} must be 1 or more')
    args.work_dir = args.work_dir or Path(
        'work_dirs', f'grid_{Path(args.config).stem}'
    )
    return args


def shared_settings(args: argparse.Namespace) -> dict:
    """Return what all runs of a grid have in common."""
    names = ('config', 'pretrained', 'network', 'cfg_options')
    return {name: getattr(args, name) for name in names}


def check_grid(args: argparse.Namespace) -> None:
    """Check what tools/train.py does not, before the first run.

    Raises:
        ValueError: The work directory holds another grid, or the config does
            not train and validate.
        OSError: A file cannot be read.
    """
    from mmengine.config import Config

    path = args.work_dir / 'grid.json'
    check_settings(path, read_report(path), shared_settings(args))
    cfg = Config.fromfile(args.config)
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if 'lr' not in optimizer or not cfg.get('val_evaluator'):
        raise ValueError(
            f'{args.config} has no optim_wrapper.optimizer.lr or no '
            'val_evaluator: name a config that trains and validates, e.g. '
            'one below configs/classification/finetune'
        )


def report(args: argparse.Namespace, outcomes: Outcomes, title: str) -> None:
    """Write the report; the best run's result becomes the grid's.

    Raises:
        OSError: A file cannot be written.
    """
    write_report(args.work_dir, shared_settings(args), outcomes, title)
    best, result = best_pair(outcomes), find_result(args)
    if best is not None and result is not None:
        own = args.work_dir / best.name / result.name
        if own.is_file():
            shutil.copyfile(own, result)


def run_grid(
    args: argparse.Namespace, outcomes: dict[Pair, Outcome], title: str
) -> None:
    """Run the pairs that have no score, and note in ``outcomes`` theirs.

    Raises:
        ValueError: The first run failed before it logged anything, as all
            others would; or the metric is not logged.
        OSError: A file cannot be written.
    """
    from mmscfs.results import read_starts

    args.work_dir.mkdir(parents=True, exist_ok=True)
    report(args, outcomes, title)
    progress = make_progress()
    pending = [pair for pair, o in outcomes.items() if o.score is None]
    task = progress.add_task('', total=len(pending))
    with progress:
        for pair in pending:
            progress.update(task, description=pair.name)
            folder = args.work_dir / pair.name
            if problem := run_pair(args, pair):
                starts = read_starts(folder)
                if not (best_pair(outcomes) or starts and starts[-1].lines):
                    raise ValueError(f'{pair.name}: {problem}')
                outcomes[pair] = Outcome(problem=problem)
            else:
                outcomes[pair] = read_outcome(folder, args.metric)
            report(args, outcomes, title)
            score = outcomes[pair].score
            progress.console.print(
                f'{pair.name}: ' + (outcomes[pair].problem or f'{score:.2f}'),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            progress.advance(task)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: every run has a score, 1: some failed, 2: there can be no grid.
    """
    args = parse_args(argv)
    pairs = [
        Pair(*values)
        for values in product(sorted({*args.lr}), sorted({*args.weight_decay}))
    ]
    if args.dry_run:
        for pair in pairs:
            print(shlex.join(make_command(args, pair)))
        return 0
    start = args.pretrained or 'random weights'
    title = f'{Path(args.config).stem} from {start}'
    try:
        check_grid(args)
        outcomes = {
            pair: read_outcome(args.work_dir / pair.name, args.metric)
            for pair in pairs
        }
        run_grid(args, outcomes, title)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped; the same command goes on', file=sys.stderr)
        return 130
    # A pipe or a file would get 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(title, NOTE, sep='\n', highlight=False, markup=False)
    console.print(to_table(outcomes))
    failed = [pair for pair, o in outcomes.items() if o.score is None]
    for pair in failed:
        print(f'failed: {pair.name}: {outcomes[pair].problem}')
    print(f'written: {args.work_dir}/grid.json and grid.md')
    return 1 if failed else 0


if __name__ == '__main__':
    raise SystemExit(main())
