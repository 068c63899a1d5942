#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a subset of ImageNet's classes by links, such as ImageNet-100.

OUT gets train/<class> and val/<class>, which are relative links to the class
folders of SOURCE, and meta/classes.txt, the classes in alphabetical order. If
SOURCE/val has no class folders but a list, meta/val.txt, then val/<class> is
a folder of links to the images. OUT appears only once it is complete.

The paper drew the 100 classes of its ImageNet-100 at random and did not
publish them. Give a list with --classes, e.g. that of another work to compare
with, or draw your own with --random; figures of different draws differ.
"""

import argparse
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

from making import (
    NUM_CLASSES,
    holds_anything,
    made_whole,
    make_parser,
    maker,
    read_names,
)

SYNSET = re.compile(r'n\d{8}')  # the name of a class

EXAMPLES = """
examples:
  # a text file with a class such as n01440764 on each line
  python tools/dataset_converters/make_imagenet_subset.py \\
      --classes imagenet100.txt
  # a hundred classes drawn at random, the same for the same seed
  python tools/dataset_converters/make_imagenet_subset.py --random 100 --seed 0
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        '--classes',
        type=Path,
        metavar='FILE',
        help='list of classes, one a line; # starts a comment',
    )
    choice.add_argument(
        '--random', type=int, metavar='N', help='draw N classes at random'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of --random (default: 0)'
    )
    for name, default, text in (
        ('source', 'data/imagenet', 'ImageNet'),
        ('out', 'data/imagenet100', 'folder to make'),
    ):
        parser.add_argument(
            f'--{name}',
            type=Path,
            default=Path(default),
            metavar='FOLDER',
            help=f'{text} (default: %(default)s)',
        )
    return parser.parse_args(argv)


def class_folders(split: Path) -> list[str]:
    """Return the names of ImageNet's class folders, sorted.

    Raises:
        ValueError: The split does not exist.
    """
    if not split.is_dir():
        raise ValueError(f'no folder {str(split)!r}: correct --source')
    return sorted(
        entry.name
        for entry in os.scandir(split)
        if SYNSET.fullmatch(entry.name) and entry.is_dir()
    )


def choose_classes(
    args: argparse.Namespace, available: Sequence[str]
) -> list[str]:
    """Return the classes of a list, or draw them.

    Raises:
        ValueError: The list is wrong, or SOURCE lacks a class.
        OSError: The list cannot be read.
    """
    if args.classes is None:
        if not 1 <= args.random <= len(available):
            raise ValueError(
                f'--random {args.random} must be from 1 to {len(available)}, '
                'the classes of --source'
            )
        drawn = random.Random(args.seed).sample(available, args.random)
        return sorted(drawn)
    names = read_names(args.classes, SYNSET, 'a class such as n01440764')
    lost = [name for name in names if name not in available]
    if lost or not names:
        problem = f'no folder {lost[0]}' if lost else 'no class'
        raise ValueError(
            f'--classes {args.classes}: {problem} in the train folder of '
            f'--source, which has {len(available)} classes'
        )
    return sorted(names)


def plan_links(source: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return {path below OUT: what it links to}.

    Raises:
        ValueError: An image or a class is missing in val.
    """
    links = {f'train/{name}': source / 'train' / name for name in classes}
    val, listing = source / 'val', source / 'meta/val.txt'
    if class_folders(val) or not listing.is_file():
        links |= {f'val/{name}': val / name for name in classes}
    else:
        names = class_folders(source / 'train')
        if len(names) != NUM_CLASSES:
            raise ValueError(
                f'{str(listing)!r} has labels: to tell which classes they '
                f'are, {str(source / "train")!r} must have {NUM_CLASSES} '
                f'class folders, not {len(names)}'
            )
        lines = listing.read_text('utf-8', errors='replace').splitlines()
        for number, line in enumerate(lines, 1):
            file, _, label = line.strip().rpartition(' ')
            if not label.isdecimal() or int(label) >= NUM_CLASSES:
                raise ValueError(
                    f'{listing}, line {number}: {line[:80]!r} is not a file '
                    f'and a label from 0 to {NUM_CLASSES - 1}'
                )
            if names[int(label)] in classes:
                path = f'val/{names[int(label)]}/{Path(file).name}'
                links[path] = val / file
    absent = [str(path) for path in links.values() if not path.exists()]
    if absent:
        raise ValueError(
            f'--source lacks {len(absent)} of {len(links)} files and folders, '
            f'e.g. {absent[0]!r}; without class folders in val there must be '
            f'a list, {str(listing)!r}'
        )
    return links


@maker
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made or already there, 1: writing failed, 2: a wrong list, SOURCE lacks
    a class, or OUT holds other things, 130: interrupted.
    """
    args = parse_args(argv)
    out = args.out.resolve()  # relative links start from the real folder
    classes = choose_classes(args, class_folders(args.source / 'train'))
    links = plan_links(args.source, classes)
    listing = ''.join(f'{name}\n' for name in classes)
    if holds_anything(out):
        made = out / 'meta/classes.txt'
        if made.is_file() and made.read_text('utf-8') == listing:
            print(f'{args.out} already has these classes, nothing to do')
            return 0
        raise ValueError(
            f'--out {args.out} holds something else, or other classes: '
            'choose another --out, or remove it'
        )
    with made_whole(out) as new:
        for name, target in links.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            start = (out / name).parent
            path.symlink_to(os.path.relpath(target.resolve(), start))
        (new / 'meta').mkdir()
        (new / 'meta/classes.txt').write_text(listing, 'utf-8')
    print(f'{args.out}: {len(classes)} classes, {len(links)} links')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
