#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Time a training step of SCFS beside its textbook form and the backbone.

All run in one process, in turn, on the same views and weights, without a
loader. A step is the losses' forward and backward pass, then the update:
clipping, optimiser, teacher and centres. The textbook form (textbook.py) is
written from the equations and runs in fp32 on a CPU, and in the precision of
the others on a GPU. The bare backbone is the floor: the student's forward and
backward pass on all views and the teacher's forward pass, nothing else.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

from measuring import MIB, PeakMemory, add_counts, count, make_parser
from step_contenders import FLOOR, OURS, TEXTBOOK, Step, contenders

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = """
examples:
  # fp32, one global view searched; two minutes on two cores
  python tools/benchmarks/step.py --precision fp32 --search-views first
  # what this machine's default precision gains
  python tools/benchmarks/step.py
  # where the time goes
  python tools/benchmarks/step.py --profile
  # time and memory against views, layers, prototypes, sizes and batch
  python tools/benchmarks/step.py --growth work_dirs/benchmarks/growth
  # on a GPU
  python tools/benchmarks/step.py --batch 64 --precision bf16 --compile
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--config',
        default=ROOT / 'configs/scfs_r50.py',
        metavar='FILE',
        help='recipe whose step is timed (default: configs/scfs_r50.py)',
    )
    add_counts(
        parser,
        ('batch', 4, 2, 'images'),
        ('global-size', 224, 1, 'side of the two global views, px'),
        ('local-size', 96, 1, 'side of the local views, px'),
        ('num-local', 8, 0, 'local views of an image'),
        ('rounds', 5, 1, 'rounds, after one that is not counted'),
    )
    parser.add_argument(
        '--search-views',
        choices=['all', 'first'],
        default='all',
        help='global views that are searched: both, or the first as in the '
        "authors' release (default: %(default)s)",
    )
    parser.add_argument(
        '--precision',
        choices=['auto', 'fp32', 'fp16', 'bf16'],
        default='auto',
        help="of autocast (default: %(default)s, the optimiser wrapper's "
        'choice)',
    )
    parser.add_argument(
        '--compile', action='store_true', help='set model.compile=True'
    )
    parser.add_argument(
        '--threads',
        type=count(1),
        metavar='N',
        help='of torch (default: its own)',
    )
    parser.add_argument(
        '--profile',
        action='store_true',
        help="print the shares of the step's parts instead",
    )
    parser.add_argument(
        '--growth',
        type=Path,
        metavar='FOLDER',
        help='measure how time and memory grow, and write a plot and a csv '
        'here, instead',
    )
    parser.add_argument(
        '--no-textbook', action='store_true', help='leave the textbook out'
    )
    parser.add_argument(
        '--json', action='store_true', help='print one line of json instead'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings of the config, e.g. model.neck.num_prototypes=4096',
    )
    args = parser.parse_args(argv)
    if not Path(args.config).is_file():
        parser.error(
            f'--config: no file {args.config}: name a recipe, e.g. '
            'configs/scfs_r50.py'
        )
    if args.num_local == 0 and not args.no_textbook:
        parser.error('--num-local 0: the textbook form needs local views')
    return args


def measure(steps: dict[str, Step], rounds: int, progress: bool) -> dict:
    """Time the steps in turn.

    Returns:
        dict: By name: seconds of "backward" and of "update" (lists), the
        first "total", and the "memory" (bytes) of a step: on a CPU beyond
        weights and states, on a GPU with those of all.
    """
    import torch
    from rich.progress import track

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    synchronise = torch.cuda.synchronize if device == 'cuda' else lambda: None
    results = {name: dict(backward=[], update=[]) for name in steps}
    for turn in track(
        range(rounds + 2),
        'rounds (two are not counted)',
        disable=not progress,
        transient=True,
    ):
        for name, step in steps.items():
            result = results[name]
            # The first round makes the optimiser's state, the second
            # measures memory, which costs time.
            memory = PeakMemory(device) if turn == 1 else None
            with memory or contextlib.nullcontext():
                synchronise()
                start = time.perf_counter()
                total = step.backward()
                synchronise()
                middle = time.perf_counter()
                step.update()
                synchronise()
                end = time.perf_counter()
            if turn == 0:
                result['total'] = total.item()
            elif turn == 1:
                result['memory'] = memory.bytes
            else:
                result['backward'].append(middle - start)
                result['update'].append(end - middle)
    return results


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    pairs = zip(numerator, denominator, strict=True)
    return statistics.median(a / b for a, b in pairs)


def report(results: dict, args: argparse.Namespace, precision: str) -> None:
    """Print the table."""
    import torch
    from rich.console import Console
    from rich.table import Table

    device = 'GPU'
    if not torch.cuda.is_available():
        device = f'CPU, {torch.get_num_threads()} threads'
    table = Table(
        title=f'batch {args.batch}, {args.search_views} searched, '
        f'{precision}, {device}, medians of {args.rounds} rounds'
    )
    table.add_column('')
    for column in (
        'forward, backward (s)',
        'update (s)',
        'images / s',
        'textbook / it',
        'it / backbone',
        'memory (MiB)',
    ):
        table.add_column(column, justify='right')
    steps = {
        name: [
            sum(pair) for pair in zip(r['backward'], r['update'], strict=True)
        ]
        for name, r in results.items()
    }
    for name, result in results.items():
        gain = cost = '-'
        if TEXTBOOK in results and name != FLOOR:
            gain = f'{ratio(steps[TEXTBOOK], steps[name]):.2f}'
        if name != FLOOR:
            floor = results[FLOOR]['backward']
            cost = f'{ratio(result["backward"], floor):.2f}'
        table.add_row(
            name,
            f'{statistics.median(result["backward"]):.3f}',
            f'{statistics.median(result["update"]):.3f}',
            f'{args.batch / statistics.median(steps[name]):.2f}',
            gain,
            cost,
            f'{result["memory"] / MIB:.0f}',
        )
    console = Console(width=110)
    console.print(table)
    console.print(
        'textbook / it: whole steps; it / backbone: forward and backward'
    )
    if TEXTBOOK in results:
        totals = [results[name]['total'] for name in (TEXTBOOK, OURS)]
        difference = abs(totals[0] - totals[1]) / abs(totals[0])
        console.print(f'totals differ by {difference:.1e} of their size')


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, return its exit code."""
    args = parse_args(argv)
    if args.growth:
        from step_growth import measure_growth

        return measure_growth(args)
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    start = PeakMemory('cpu')
    with start if args.json else contextlib.nullcontext():
        steps, model = contenders(args)
        if args.profile:
            from step_profile import profile

            profile(steps[OURS], model)
            return 0
        results = measure(steps, args.rounds, progress=not args.json)
    if args.json:
        print(json.dumps(dict(results, process_memory=start.bytes)))
        return 0
    from mmscfs.engine.optimizers import default_precision

    precision = args.precision
    if precision == 'auto':
        precision = f'{default_precision()} (auto)'
    report(results, args, precision)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
