#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Measure the images per second and core of the data pipeline.

Ours (LoadImage, MultiCrop, PackInputs) is timed beside the usual pipeline of
Pillow and torchvision with the same augmentations: both read JPEG files and
make 2 global views of 224 px and local ones of 96 px, in this process and on
one thread. The seconds are of CPU time, without waiting for the disk or for
other processes, and both keep freed memory as our workers do. Rounds take
turns, so that a busy machine slows all alike; ratios are medians over rounds.

Ours is what a training without a GPU has. It ends with uint8 views, which the
model normalizes on its device; the other ends with normalized float views.
Two more rows show ours with color, blur and solarization left to the device,
as in a training on a GPU, and with the filters of version 0.1
(multi_crop.filters=opencv).

If a step of B images takes T seconds, divide B / T by the images per second
and core of ours: this many workers keep the device busy.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from measuring import add_counts, commanded, make_parser, make_table, ratio

EXAMPLES = """
examples:
  # made images, about a minute
  python tools/benchmarks/loader.py
  # of the size of photographs, which are decoded at a reduced scale
  python tools/benchmarks/loader.py --size 2000x1500 --images 16
  # 200 images of your data set, 4 local views
  python tools/benchmarks/loader.py --data data/imagenet/train --images 200 \\
      --local 4
"""
USUAL = 'Pillow and torchvision'


def report(rates: dict[str, list[float]]) -> None:
    """Print the table."""
    from rich.console import Console

    columns = ('pipeline', 'median', 'lowest', 'highest', 'ratio')
    table = make_table('Images per second and core', *columns)
    for name, values in rates.items():
        figures = statistics.median(values), min(values), max(values)
        gain = ratio(values, rates[USUAL])
        table.add_row(name, *(f'{f:.1f}' for f in figures), f'{gain:.2f}')
    Console().print(table)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""

    def sides(text: str) -> tuple[int, int]:
        width, _, height = text.partition('x')
        valid = width.isdecimal() and height.isdecimal()
        if not valid or min(int(width), int(height)) < 1:
            raise argparse.ArgumentTypeError(
                f'{text!r} is not WIDTHxHEIGHT in pixels, e.g. 500x375'
            )
        return int(width), int(height)

    parser = make_parser(__doc__, EXAMPLES)
    add_counts(
        parser,
        images=('images in a round', 64, 1),
        rounds=('rounds of each pipeline, after one to warm up', 5, 1),
        local=('local views per image', 8, 0),
        seed=('seed of the made images and of the augmentation', 0, 0),
    )
    parser.add_argument(
        '--size',
        type=sides,
        default=(500, 375),
        metavar='WxH',
        help="size of the made images in pixels (default: 500x375, ImageNet's "
        'average)',
    )
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help='take images from this folder, at any depth, instead of making '
        'them in a temporary one',
    )
    return parser.parse_args(argv)


@commanded('nothing is printed')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, return its exit code."""
    args = parse_args(argv)

    import cv2
    import numpy as np
    import torch
    from loader_pipelines import (
        make_images,
        measure,
        our_pipeline,
        usual_pipeline,
    )
    from mmengine.registry import init_default_scope
    from rich.progress import track

    from mmscfs.datasets import ImageFiles
    from mmscfs.datasets.transforms.loading import keep_freed_memory

    init_default_scope('mmpretrain')
    keep_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            try:
                dataset = ImageFiles(data_root=args.data)
            except FileNotFoundError as error:
                raise ValueError(
                    f'no images in --data {args.data}: name a folder of '
                    'images, or leave --data out'
                ) from error
            number = min(args.images, len(dataset))
            # From all over the folder, which is in order of classes.
            chosen = np.linspace(0, len(dataset) - 1, number).astype(int)
            paths = [dataset.get_data_info(i)['img_path'] for i in chosen]
        else:
            paths = make_images(
                Path(folder), args.images, args.size, args.seed
            )
        kilobytes = sum(Path(p).stat().st_size for p in paths) / 1000
        print(
            f'{len(paths)} images of {kilobytes / len(paths):.0f} kB, '
            f'2 + {args.local} views, {args.rounds} rounds'
        )
        ours = partial(our_pipeline, args.local, args.seed)
        pipelines = {
            'ours': (ours(), paths),
            'colors on device': (ours(color_on_device=True), paths),
            "OpenCV's filters": (ours(filters='opencv'), paths),
            USUAL: (usual_pipeline(args.local), paths),
        }
        rates: dict[str, list[float]] = {name: [] for name in pipelines}
        for turn in track(
            range(args.rounds + 1), 'rounds (one to warm up)', transient=True
        ):
            for name, pipeline in pipelines.items():
                rate = measure(*pipeline)
                if turn > 0:  # the first fills caches
                    rates[name].append(rate)
    report(rates)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
