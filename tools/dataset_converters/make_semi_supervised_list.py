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
from collections.abc import Sequence
from pathlib import Path

from making import NUM_CLASSES, make_parser, maker, read_names, writing

PERCENT = {12_811: 1, 128_116: 10}  # by the number of images
NAME = re.compile(r'(n\d{8})_\d+\.JPEG')
EXAMPLES = """
examples:
  # data/imagenet/meta/train_1percent.txt
  python tools/dataset_converters/make_semi_supervised_list.py 1percent.txt
  # somewhere else
  python tools/dataset_converters/make_semi_supervised_list.py \\
      10percent.txt --out train_10percent.txt
  # whether all its images are there
  python tools/dataset_converters/check_dataset.py in1k-1percent
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'list', type=Path, metavar='LIST', help='1percent.txt or 10percent.txt'
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path('data/imagenet'),
        metavar='FOLDER',
        help='ImageNet (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='what to write (default: meta/train_1percent.txt or '
        'meta/train_10percent.txt below --root, which the configs read)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace an existing file'
    )
    return parser.parse_args(argv)


def annotate(path: Path) -> dict[str, int]:
    """Return the images of a list as {file below train: label}.

    Raises:
        ValueError: It is not one of SimCLRv2's lists.
        OSError: It cannot be read.
    """
    names = read_names(path, NAME, 'an image such as n01440764_10026.JPEG')
    found = {f'{name[:9]}/{name}': name[:9] for name in names}
    classes = sorted(set(found.values()))
    if len(names) not in PERCENT or len(classes) != NUM_CLASSES:
        known = ' or '.join(f'{n} ({p}%)' for n, p in PERCENT.items())
        raise ValueError(
            f'{path} has {len(names)} names of {len(classes)} classes instead '
            f'of {known} of {NUM_CLASSES}: take 1percent.txt or 10percent.txt '
            'of SimCLRv2, whole'
        )
    labels = {name: label for label, name in enumerate(classes)}
    return {file: labels[name] for file, name in found.items()}


@maker
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: a wrong list, or OUT exists, 130:
    interrupted.
    """
    args = parse_args(argv)
    labels = annotate(args.list)
    name = f'meta/train_{PERCENT[len(labels)]}percent.txt'
    out = args.out or args.root / name
    if out.exists() and not args.force:
        raise ValueError(f'{out} exists: pass --force to replace it')

    # After the checks: it imports torch.
    from mmscfs.checkpoint import write_atomically

    lines = [f'{file} {label}\n' for file, label in labels.items()]
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, ''.join(lines).encode())
    print(f'{out}: {len(lines)} images of {NUM_CLASSES} classes')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
