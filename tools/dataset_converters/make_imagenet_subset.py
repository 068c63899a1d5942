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
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

NUM_CLASSES = 1000  # of ImageNet: labels in meta/val.txt mean nothing else
SYNSET = re.compile(r'n\d{8}')
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
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        '--seed', type=int, default=0, help='of --random (default: 0)'
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


def read_classes(path: Path, available: Sequence[str]) -> list[str]:
    """Read a list of classes.

    Raises:
        ValueError: A class is given twice, is not a synset, or is not there.
        OSError: The list cannot be read.
    """
    found: list[str] = []
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        name = line.partition('#')[0].strip()
        if not name:
            continue
        where = f'--classes {path}, line {number}'
        if not SYNSET.fullmatch(name):
            raise ValueError(
                f'{where}: {name[:80]!r} is not a class such as n01440764'
            )
        if name in found:
            raise ValueError(f'{where}: {name} is listed twice')
        if name not in available:
            raise ValueError(
                f'{where}: no folder {name} in the train folder of --source, '
                f'which has {len(available)} classes'
            )
        found.append(name)
    if not found:
        raise ValueError(f'--classes {path} names no class')
    return sorted(found)


def draw_classes(count: int, seed: int, available: Sequence[str]) -> list[str]:
    """Draw classes at random.

    Raises:
        ValueError: There are not so many.
    """
    if not 1 <= count <= len(available):
        raise ValueError(
            f'--random {count} must be from 1 to {len(available)}, the '
            'classes of --source'
        )
    return sorted(random.Random(seed).sample(available, count))


def class_folders(split: Path) -> list[str]:
    """Return the names of the class folders, sorted."""
    if not split.is_dir():
        raise ValueError(f'no folder {str(split)!r}: correct --source')
    return sorted(
        entry.name
        for entry in os.scandir(split)
        if SYNSET.fullmatch(entry.name) and entry.is_dir()
    )


def plan_links(source: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return {path below OUT: what it links to}.

    Raises:
        ValueError: A class is missing in val.
    """
    links = {f'train/{name}': source / 'train' / name for name in classes}
    val, listing = source / 'val', source / 'meta/val.txt'
    folders = class_folders(val)
    if folders or not listing.is_file():
        lacking = [name for name in classes if name not in folders]
        if lacking:
            raise ValueError(
                f'{len(lacking)} of {len(classes)} classes have no folder in '
                f'{str(val)!r}, e.g. {lacking[0]}; without class folders '
                f'there must be a list, {str(listing)!r}'
            )
        return links | {f'val/{name}': val / name for name in classes}
    for name, files in read_val_list(listing, source).items():
        if name in classes:
            links |= {f'val/{name}/{Path(f).name}': val / f for f in files}
    lacking = [
        name for name in classes if not any(f'/{name}/' in k for k in links)
    ]
    absent = [str(p) for p in links.values() if not p.exists()]
    if lacking or absent:
        raise ValueError(
            f'{str(listing)!r} names no image of {len(lacking)} classes '
            f'({", ".join(lacking[:3])}), and {len(absent)} that do not '
            f'exist ({", ".join(absent[:3])})'
        )
    return links


def read_val_list(listing: Path, source: Path) -> dict[str, list[str]]:
    """Read "FILE LABEL" lines as {class: files}.

    Raises:
        ValueError: A line is not of this form, or labels cannot be told.
    """
    names = class_folders(source / 'train')
    if len(names) != NUM_CLASSES:
        raise ValueError(
            f'{str(listing)!r} has labels: to tell which classes they are, '
            f'{str(source / "train")!r} must have {NUM_CLASSES} class '
            f'folders, not {len(names)}'
        )
    files = defaultdict(list)
    lines = listing.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        file, _, label = line.strip().rpartition(' ')
        if not file or not label.isdecimal() or int(label) >= NUM_CLASSES:
            raise ValueError(
                f'{listing}, line {number}: {line[:80]!r} is not a file and '
                f'a label from 0 to {NUM_CLASSES - 1}'
            )
        files[names[int(label)]].append(file)
    return files


def is_made(out: Path, links: dict[str, str], listing: str) -> bool:
    """Tell whether OUT already is this subset.

    Raises:
        ValueError: It is something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = {
        str(path.relative_to(out)): path.is_symlink() and os.readlink(path)
        for split in ('train', 'val')
        for path in (out / split).rglob('*')  # which does not follow links
        if path.is_symlink() or not path.is_dir()
    }
    written = out / 'meta/classes.txt'
    if (
        found == links
        and written.is_file()
        and written.read_text('utf-8') == listing
    ):
        return True
    raise ValueError(
        f'--out {out} holds something else, or other classes: choose another '
        '--out, or remove it'
    )


def make(out: Path, links: dict[str, str], listing: str) -> None:
    """Make the subset in a folder beside OUT, then give it its name."""
    new = out.with_name(f'.{out.name}.tmp-{os.getpid()}')
    try:
        for name, target in links.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        (new / 'meta').mkdir()
        (new / 'meta/classes.txt').write_text(listing, 'utf-8')
        new.rename(out)  # or takes the place of an empty folder
    finally:
        shutil.rmtree(new, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made or already there, 1: writing failed, 2: a wrong list, SOURCE lacks
    a class, or OUT holds other things.
    """
    args = parse_args(argv)
    out = args.out.resolve()  # relative links start from the real folder
    try:
        available = class_folders(args.source / 'train')
        if args.classes is not None:
            classes = read_classes(args.classes, available)
        else:
            classes = draw_classes(args.random, args.seed, available)
        links = {
            name: os.path.relpath(target.resolve(), (out / name).parent)
            for name, target in plan_links(args.source, classes).items()
        }
        listing = ''.join(f'{name}\n' for name in classes)
        if is_made(out, links, listing):
            print(f'{args.out} already has these classes, nothing to do')
            return 0
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        make(out, links, listing)
    except OSError as error:
        print(f'error: cannot make {args.out}: {error}', file=sys.stderr)
        return 1
    print(f'{args.out}: {len(classes)} classes, {len(links)} links')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
