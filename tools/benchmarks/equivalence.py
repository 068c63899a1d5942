#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare training on several processes with training on one.

The same recipe, seed and global batch are trained by the runner on one
process and on others, on the CPU and in double precision, each process with
its share of the images; batch norm is synchronised. The table has the largest
differences from one process at the end of the run, and of the losses those
of every step, averaged over the processes. Small networks and made images: it
is about what the processes exchange, not about the numbers of a real run.

Exit code 1 if a difference exceeds the tolerance.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from measuring import add_counts, count, make_parser, parse_settings

METHODS = ('dino', 'scfs', 'co2')
STEPS_PER_EPOCH = 4
EXAMPLES = """
examples:
  # all methods on 1, 2 and 4 processes, with and without accumulation
  python tools/benchmarks/equivalence.py
  # what plain batch norm makes of it
  python tools/benchmarks/equivalence.py --cfg-options sync_bn=None
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=METHODS,
        default=METHODS,
        help='what is trained (default: all)',
    )
    for name, default, low, text in (
        ('processes', [2, 4], 2, 'numbers of processes beside one'),
        ('accumulate', [1, 2], 1, 'batches that a step accumulates'),
    ):
        parser.add_argument(
            f'--{name}',
            nargs='+',
            type=count(low),
            default=default,
            metavar='N',
            help=f'{text} (default: %(default)s)',
        )
    add_counts(
        parser,
        ('batch', 16, 2, 'images in a batch of all processes'),
        ('epochs', 2, 1, f'epochs of {STEPS_PER_EPOCH} batches'),
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-9,
        metavar='X',
        help='largest difference that is taken for rounding (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print one line of json instead'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings of all configs, e.g. sync_bn=None',
    )
    args = parser.parse_args(argv)
    for processes in args.processes:
        if args.batch % processes or args.batch == processes:
            parser.error(
                f'--batch {args.batch} must be a multiple of --processes '
                f'{processes}, and two or more images for each'
            )
    return args


def measure(args: argparse.Namespace) -> list[dict]:
    """Train all that the arguments ask for; return a row for each."""
    from equivalence_runs import IMAGE, compare, make_config, train
    from loader_pipelines import make_images
    from rich.progress import Progress

    options = parse_settings(args.cfg_options)
    runs = [(m, a) for m in args.methods for a in args.accumulate]
    rows = []
    with (
        tempfile.TemporaryDirectory() as data,
        Progress(disable=args.json, transient=True) as progress,
    ):
        images = STEPS_PER_EPOCH * args.batch
        make_images(Path(data), images, (IMAGE, IMAGE), seed=0)
        task = progress.add_task(
            'runs', total=len(runs) * (1 + len(args.processes))
        )
        for method, accumulate in runs:
            alone = None
            for processes in (1, *args.processes):
                cfg = make_config(
                    method, accumulate, args.batch, args.epochs, data
                )
                cfg.merge_from_dict(options or {})
                results = train(cfg, processes)
                progress.advance(task)
                if alone is None:
                    (alone,) = results
                    continue
                row = dict(
                    method=method,
                    accumulate=accumulate,
                    processes=processes,
                    moved=alone['moved'],
                )
                rows.append(row | compare(alone, results, args.batch))
    return rows


def report(rows: list[dict]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title='largest differences from one process')
    titles = dict(
        method='',
        accumulate='accumulated',
        processes='processes',
        losses='losses',
        weights='weights',
        teacher='teacher',
        memory='centres, queue',
        buffers='statistics',
        optimiser='optimiser',
        between='between processes',
        moved='weights moved',
    )
    for title in titles.values():
        table.add_column(title, justify='right')
    for row in rows:
        values = [row[name] for name in titles]
        table.add_row(
            *(f'{v:.1e}' if isinstance(v, float) else str(v) for v in values)
        )
    Console(width=130).print(table)


def main(argv: list[str] | None = None) -> int:
    """Compare, return the exit code."""
    args = parse_args(argv)
    # On the CPU, and before a fork, which threads do not survive.
    os.environ.update(
        CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', MKL_NUM_THREADS='1'
    )
    rows = measure(args)
    if args.json:
        print(json.dumps(rows))
    else:
        report(rows)
    fixed = ('method', 'accumulate', 'processes', 'moved')
    worst = max(v for row in rows for k, v in row.items() if k not in fixed)
    if not worst <= args.tolerance:
        print(f'a difference of {worst:.1e} is more than rounding')
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
