#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Turn a list of SimCLRv2 into an annotation file of mmpretrain.

SimCLRv2 published which ImageNet images make up 1% and 10% of the labels:
1percent.txt and 10percent.txt, a file name such as n01440764_10026.JPEG a
line. The annotation file has the folder and the label as well, e.g.
"n01440764/n01440764_10026.JPEG 0", in the order of the list. Labels are the
places of the classes in alphabetical order, as everywhere in mmpretrain.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

PERCENT = {12_811: 1, 128_116: 10}  # by the number of images
NUM_CLASSES = 1000
NAME = re.compile(r'(n\d{8})_\d+\.JPEG')
EXAMPLES = """
examples:
  # data/imagenet/meta/train_1percent.txt
  python tools/dataset_converters/make_semi_supervised_list.py 1percent.txt
  # ImageNet is on another machine
  python tools/dataset_converters/make_semi_supervised_list.py \\
      10percent.txt --no-check-files --out train_10percent.txt
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'list', type=Path, metavar='LIST', help='1percent.txt or 10percent.txt'
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path('data/imagenet'),
        metavar='FOLDER',
        help='ImageNet, with the class folders in FOLDER/train (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='what to write (default: meta/train_1percent.txt or '
        'meta/train_10percent.txt below --root, which the configs read)',
    )
    parser.add_argument(
        '--no-check-files',
        action='store_true',
        help='do not look whether the images are there',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace an existing file'
    )
    return parser.parse_args(argv)


def read_list(path: Path) -> dict[str, str]:
    """Read a list as {file name: class}.

    Raises:
        ValueError: It is not one of SimCLRv2's lists.
        OSError: It cannot be read.
    """
    found: dict[str, str] = {}
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        name = line.strip()
        match = NAME.fullmatch(name)
        if match:
            if name in found:
                raise ValueError(
                    f'{path}, line {number}: {name} is listed twice; take '
                    'the list as it was published'
                )
            found[name] = match[1]
        elif name:
            raise ValueError(
                f'{path}, line {number}: {name[:80]!r} is not the name of an '
                'ImageNet training image, e.g. n01440764_10026.JPEG'
            )
    if len(found) not in PERCENT:
        known = ' or '.join(f'{n} ({p}%)' for n, p in PERCENT.items())
        raise ValueError(
            f'{path} has {len(found)} names instead of {known}: take '
            '1percent.txt or 10percent.txt of SimCLRv2, whole'
        )
    return found


def number_classes(found: dict[str, str], train: Path) -> dict[str, int]:
    """Return {class: label}.

    Raises:
        ValueError: There are not 1000 classes.
    """
    classes = sorted(set(found.values()))
    if len(classes) != NUM_CLASSES:
        text = f'the list has {len(classes)} classes instead of {NUM_CLASSES}'
        folders = {p.name for p in train.glob('n*')}  # perhaps not here
        lacking = sorted(folders - set(classes))
        unknown = sorted(set(classes) - folders) if folders else []
        for what, names in (
            ('no image of', lacking),
            ('no folder for', unknown),
        ):
            if names:
                text += f'; {what} {", ".join(names[:5])} ({len(names)})'
        raise ValueError(f'{text}: take the list as it was published')
    return {name: label for label, name in enumerate(classes)}


def check_files(found: dict[str, str], train: Path) -> None:
    """Check that all images are there, and not empty.

    Raises:
        ValueError: Some are not.
    """
    remedy = 'correct --root, or pass --no-check-files'
    if not train.is_dir():
        raise ValueError(f'no folder {str(train)!r} of images: {remedy}')
    bad = []
    console = Console(stderr=True)
    for name, folder in track(
        found.items(),
        'images',
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        path = train / folder / name
        if not path.is_file() or not path.stat().st_size:
            bad.append(str(path))
    if bad:
        raise ValueError(
            f'{len(bad)} of {len(found)} images are missing or empty, e.g. '
            f'{", ".join(bad[:3])}: complete ImageNet (tools/dataset_'
            f'converters/check_dataset.py in1k looks further), {remedy}'
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: a wrong list, or images are missing.
    """
    args = parse_args(argv)
    train = args.root / 'train'
    try:
        if not args.list.is_file():
            raise ValueError(
                f'no list {str(args.list)!r}: take 1percent.txt or '
                '10percent.txt of SimCLRv2'
            )
        found = read_list(args.list)
        labels = number_classes(found, train)
        percent = PERCENT[len(found)]
        out = args.out or args.root / f'meta/train_{percent}percent.txt'
        if out.exists() and not args.force:
            raise ValueError(f'{out} exists: pass --force to replace it')
        if not args.no_check_files:
            check_files(found, train)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2

    # After the checks: it imports torch.
    from mmscfs.checkpoint import write_atomically

    lines = [f'{c}/{name} {labels[c]}\n' for name, c in found.items()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, ''.join(lines).encode())
    except OSError as error:
        print(f'error: cannot write {out}: {error}', file=sys.stderr)
        return 1
    print(f'{out}: {len(lines)} images of {len(labels)} classes')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
