#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check that a data set is complete, and where the configs look for it.

Counts the images and classes of every split against the published totals, and
names what is missing, empty or damaged. With --decode it decodes the images,
too, on all cores, and lists those that cannot be read. Nothing is downloaded
or changed.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_line import make_parser
from command_paths import folder

NAMES = (
    'in1k, in100, in1k-1percent, in1k-10percent, coco, voc0712, voc07, '
    'cifar10, cifar100, cub200, cars, aircraft, pets'
)
EXAMPLES = """
examples:
  # data/imagenet, before days of pre-training
  python tools/dataset_converters/check_dataset.py in1k
  # somewhere else
  python tools/dataset_converters/check_dataset.py coco --root /datasets/coco
  # your own images, and a thousand of COCO's
  python tools/dataset_converters/check_dataset.py my/images --decode
  python tools/dataset_converters/check_dataset.py coco --decode 1000
  # the layout of every data set
  python tools/dataset_converters/check_dataset.py --list

exit code: 0 complete, 1 incomplete, 2 wrong call
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'name', nargs='?', metavar='NAME', help=f'{NAMES}; or a folder'
    )
    parser.add_argument(
        '--root',
        type=folder,
        metavar='FOLDER',
        help="where the data set is (default: where the configs' data_root "
        'says, below data/)',
    )
    parser.add_argument(
        '--decode',
        nargs='?',
        const=sys.maxsize,
        default=0,
        type=int,
        metavar='N',
        help='decode N images of each split, spread over it; all without N '
        '(default: none)',
    )
    parser.add_argument(
        '--list',
        action='store_true',
        help='print the names and layouts of the data sets',
    )
    args = parser.parse_args(argv)
    if args.decode < 0:
        parser.error(f'--decode {args.decode} must be a number of images')
    if args.list == bool(args.name):
        parser.error('give the NAME of a data set, a folder, or --list')
    if not (args.list or args.name in NAMES.split(', ')):
        try:
            folder(args.name)
        except argparse.ArgumentTypeError as error:
            parser.error(
                f'unknown data set {args.name!r}: choose one of {NAMES}, or '
                f'name a folder of images ({error})'
            )
    return args


def print_layout(
    console: Console, name: str, dataset: Mapping[str, Any], root: Path
) -> None:
    """Print which files belong below the root."""
    console.print(f'[bold]{name}[/bold]: {dataset["title"]}')
    console.print(f'{root}/', style='cyan', highlight=False)
    for line in dataset['layout'].splitlines():
        # Not folded: these are paths.
        console.print(f'    {line}', highlight=False, soft_wrap=True)


def check(
    console: Console,
    name: str,
    dataset: Mapping[str, Any],
    root: Path,
    decode: int,
) -> bool:
    """Check a data set, print what was found, return if it is complete."""
    from mmscfs.datasets.checks.published import check_published

    bars = Console(stderr=True)
    show = partial(
        track, console=bars, transient=True, disable=not bars.is_terminal
    )
    table = Table(title=f'{dataset["title"]}: {root}')
    table.add_column('split', no_wrap=True)
    columns = ('images', 'classes', 'missing', 'decoded', 'empty or damaged')
    for column in columns:
        table.add_column(column, justify='right')
    table.add_column('')
    found = []
    for report in check_published(dataset, root, show, decode):
        wrong, known = report.problems(), report.known_images
        found += [f'{report.name}: {problem}' for problem in wrong]
        table.add_row(
            report.name,
            f'{report.images:,}' + ('' if known is None else f' of {known:,}'),
            f'{len(report.counts):,} of {report.known_classes:,}',
            f'{len(report.missing):,}',
            f'{report.decoded:,}',
            f'{len(report.damaged):,}',
            '[red]incomplete[/red]' if wrong else '[green]complete[/green]',
        )
    console.print(table)
    for problem in found:
        # A name may have bytes that are not text.
        text = problem.encode(errors='backslashreplace').decode()
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if found and dataset['layout']:
        console.print('\nThe layout expected:')
        print_layout(console, name, dataset, root)
    return not found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    args = parse_args(argv)

    from mmscfs.datasets.checks.published import known_datasets, own_images

    # A pipe or a file would get 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    known = known_datasets()
    if args.list:
        for name, dataset in known.items():
            print_layout(console, name, dataset, Path(dataset['root']))
        return 0
    dataset = known.get(args.name) or own_images(args.name)
    root = args.root or Path(dataset['root'])
    try:
        complete = check(console, args.name, dataset, root, args.decode)
    except OSError as error:  # e.g. a folder that may not be read
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0 if complete else 1


if __name__ == '__main__':
    raise SystemExit(main())
