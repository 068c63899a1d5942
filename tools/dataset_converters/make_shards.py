#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Pack a folder of images into a few large tar files, for pre-training.

Network file systems serve a few large files better than a million small ones.
OUT gets plain tar files of at most --max-size, shard-00000.tar and so on, and
shards.tsv, which says where in them each image is. Images are copied as they
are. OUT appears only once it is complete, and an existing one is left alone.

The images are those that pre-training reads from SOURCE: those of a list
where there is one (--list, or meta/train.txt beside ImageNet's train), or else
every image file at any depth. They keep their order, so a run on OUT makes
the same views as one on SOURCE. To pre-train on it, name the folder in the
place of the other.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'TB': 10**12}
EXAMPLES = """
examples:
  # ImageNet: 147 GB in 148 files, and a run that reads them
  python tools/dataset_converters/make_shards.py \\
      data/imagenet/train data/imagenet-shards/train
  python tools/train.py configs/scfs_r50.py --cfg-options \\
      train_dataloader.dataset.data_root=data/imagenet-shards
  # the images of a list, in files of 250 MB
  python tools/dataset_converters/make_shards.py my/images my/shards \\
      --list few.txt --max-size 250MB
"""


def parse_size(text: str) -> int:
    """Return the bytes that a text such as 1GB or 250MB names."""
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([KMGT]B)', text.strip().upper())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a size such as 1GB or 250MB'
        )
    return int(float(match[1]) * UNITS[match[2]])


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'source', type=Path, metavar='SOURCE', help='folder of images'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to make')
    parser.add_argument(
        '--list',
        type=Path,
        metavar='FILE',
        help='pack the images of this list alone, a name below SOURCE a line '
        '(labels behind names are ignored)',
    )
    parser.add_argument(
        '--max-size',
        type=parse_size,
        default='1GB',
        metavar='SIZE',
        help='the most of a file; a larger image gets one of its own '
        '(default: %(default)s)',
    )
    return parser.parse_args(argv)


def list_names(source: Path, listing: Path | None) -> list[str]:
    """Return the names below SOURCE that pre-training reads, in its order.

    Raises:
        FileNotFoundError: There is no SOURCE, no list, or no image.
        ValueError: It holds shards.
    """
    from mmengine.registry import init_default_scope

    from mmscfs.datasets import ImageFiles
    from mmscfs.datasets.shards import is_sharded

    if is_sharded(source):
        raise ValueError(f'{source} holds shards already')
    init_default_scope('mmpretrain')
    source = source.absolute()
    dataset = ImageFiles(
        data_root=str(source.parent),
        data_prefix=source.name,
        ann_file=str(listing.absolute()) if listing else '',
        lazy_init=True,
    )
    return [
        str(Path(image['img_path']).relative_to(source))
        for image in dataset.load_data_list()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made, 1: reading or writing failed, 2: no images, names that cannot be
    packed, an image of the list is missing, no space, or OUT exists.
    """
    args = parse_args(argv)
    try:
        if args.out.exists() and not is_empty(args.out):
            raise ValueError(
                f'{args.out} exists: choose another, or remove it'
            )
        if not args.source.is_dir():
            raise ValueError(
                f'no folder {str(args.source)!r}: name the folder of the '
                'images as SOURCE'
            )
        from rich.console import Console
        from rich.progress import track

        from mmscfs.datasets import shards

        names = list_names(args.source, args.list)
        shards.check_names(names)
        sizes = [(args.source / name).stat().st_size for name in names]
        check_space(args.out, sum(map(shards.room, names, sizes)))
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    numbers = shards.plan(names, sizes, args.max_size)
    console = Console(stderr=True)
    images = track(
        list(zip(numbers, names, strict=True)),
        'images',
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        count = shards.write_shards(args.source, images, args.out)
    except OSError as error:
        print(f'error: cannot make {args.out}: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.out}: {count} images in {numbers[-1] + 1} shards, '
        f'{sum(sizes) / UNITS["GB"]:.2f} GB'
    )
    return 0


def is_empty(folder: Path) -> bool:
    """Tell whether this is a folder with nothing in it."""
    return folder.is_dir() and not any(folder.iterdir())


def check_space(out: Path, needed: int) -> None:
    """Check that there is space for OUT.

    Raises:
        ValueError: There is not.
    """
    there = next(p for p in out.absolute().parents if p.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        gigabytes = UNITS['GB']
        raise ValueError(
            f'{out} takes {needed / gigabytes:.1f} GB, but {there} has '
            f'{free / gigabytes:.1f} GB free'
        )


if __name__ == '__main__':
    raise SystemExit(main())
