#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Measure the images per second and core of the data pipeline.

Ours (LoadImage, MultiCrop, PackInputs) is timed beside the usual pipeline of
Pillow and torchvision with the same augmentations: both read JPEG files and
make 2 global views of 224 px and local ones of 96 px, in this process and on
one thread. The seconds are of CPU time, without waiting for the disk or for
other processes. Rounds take turns, so that a busy machine slows all alike;
ratios are medians over rounds.

Ours ends with uint8 views, which the model normalises on its device; the
other ends with normalised float views. Three more rows are of ours with an
option: JPEG decoded at a reduced scale where every crop allows it, images
read from tar shards, and colour, blur and solarisation left to the device.

A training step of B images that takes T seconds needs about B / T divided by
ours' images per second and core: that many workers keep the device busy.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from measuring import add_counts, make_parser
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image, ImageFilter, ImageOps
from rich.console import Console
from rich.table import Table
from torchvision import transforms as tv

from mmscfs.datasets import ImageFiles, LoadImage, MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.shards import read_index, write_shards
from mmscfs.datasets.transforms.loading import EncodedImage

EXAMPLES = """
examples:
  # made images, about a minute
  python tools/benchmarks/loader.py
  # of the size of photographs, where the reduced scale tells
  python tools/benchmarks/loader.py --size 2000x1500 --images 16
  # 200 images of one's own data set, 4 local views
  python tools/benchmarks/loader.py --data data/imagenet/train --images 200 \\
      --local 4
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
QUALITY = 90  # of made JPEG files
USUAL = 'Pillow and torchvision'
Pipeline = Callable[[str, int], object]


def make_images(folder: Path, count: int, size: tuple, seed: int) -> list[str]:
    """Write JPEG files: parts of photographs under smooth random colours."""
    generator = np.random.default_rng(seed)
    photos = []
    for name in ('china.jpg', 'flower.jpg'):
        data = (resources.files('sklearn.datasets.images') / name).read_bytes()
        photos.append(cv2.imdecode(np.frombuffer(data, np.uint8), 1))
    paths = []
    for i in range(count):
        photo = photos[i % len(photos)]
        share = generator.uniform(0.5, 1)
        height, width = (round(share * side) for side in photo.shape[:2])
        top = generator.integers(photo.shape[0] - height + 1)
        left = generator.integers(photo.shape[1] - width + 1)
        part = photo[top : top + height, left : left + width]
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        image = cv2.addWeighted(part, 0.75, smooth, 0.25, 0)
        paths.append(str(folder / f'{i:05d}.jpg'))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return paths


def pack(paths: Sequence[str], folder: str) -> list[str]:
    """Pack images into a shard, return their paths in it."""
    # Names below the root of all paths, which need no common folder.
    names = [str(Path(path).absolute().relative_to('/')) for path in paths]
    write_shards('/', ((0, name) for name in names), folder)
    return list(read_index(folder).values())


def our_pipeline(
    num_local: int,
    seed: int,
    reduced: bool = False,
    color_on_device: bool = False,
) -> Pipeline:
    """Return a function of a path and an index: our views."""
    steps = Compose(
        [
            dict(type='LoadImage', reduced=reduced),
            dict(
                type='MultiCrop',
                num_local=num_local,
                color_on_device=color_on_device,
            ),
            dict(type='PackInputs'),
        ]
    )
    return lambda path, index: steps(
        dict(img_path=path, sample_idx=SampleKey(index, seed))
    )


def blur(image: Image.Image) -> Image.Image:
    """Blur as DINO does."""
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))


def solarize(image: Image.Image) -> Image.Image:
    """Solarise as DINO does."""
    return ImageOps.solarize(image, 128)


def usual_pipeline(num_local: int) -> Pipeline:
    """Return a function of a path: DINO's views by Pillow and torchvision."""

    def view(size, scale, blur_prob, solarize_prob):
        crop = tv.RandomResizedCrop(
            size, scale, interpolation=tv.InterpolationMode.BICUBIC
        )
        jitter = tv.ColorJitter(0.4, 0.4, 0.2, 0.1)
        return tv.Compose(
            [
                crop,
                tv.RandomHorizontalFlip(0.5),
                tv.RandomApply([jitter], 0.8),
                tv.RandomGrayscale(0.2),
                tv.RandomApply([tv.Lambda(blur)], blur_prob),
                tv.RandomApply([tv.Lambda(solarize)], solarize_prob),
                tv.ToTensor(),
                tv.Normalize(MEAN, STD),
            ]
        )

    steps = [
        view(224, (0.25, 1), 1.0, 0.0),
        view(224, (0.25, 1), 0.1, 0.2),
        *[view(96, (0.05, 0.25), 0.5, 0.0)] * num_local,
    ]

    def run(path, _):
        image = Image.open(path).convert('RGB')
        return [step(image) for step in steps]

    return run


def measure(pipeline: Pipeline, paths: Sequence[str]) -> float:
    """Return the images per second of CPU time in one pass."""
    start = time.process_time()
    for index, path in enumerate(paths):
        pipeline(path, index)
    return len(paths) / (time.process_time() - start)


@contextmanager
def stages() -> Iterator[Counter]:
    """Count the CPU seconds of the stages of our pipeline."""
    seconds: Counter = Counter()

    def timed(name: str, call: Callable) -> Callable:
        def run(*args, **kwargs):
            start = time.process_time()
            result = call(*args, **kwargs)
            seconds[name] += time.process_time() - start
            return result

        return run

    with ExitStack() as patches:
        for name, owner, attribute in (
            ('decode', LoadImage, 'transform'),
            ('reduced decode', EncodedImage, 'decode'),
            ('crop and resize', MultiCrop, 'crop'),
            ('jitter and grey', MultiCrop, 'color'),
            ('blur', cv2, 'GaussianBlur'),
        ):
            call = timed(name, getattr(owner, attribute))
            patches.enter_context(mock.patch.object(owner, attribute, call))
        yield seconds


def profile(pipeline: Pipeline, paths: Sequence[str]) -> dict[str, float]:
    """Return the milliseconds per image of each stage of our pipeline."""
    with stages() as seconds:
        total = len(paths) / measure(pipeline, paths)
    seconds['rest'] = total - seconds.total()
    return {k: 1000 * v / len(paths) for k, v in seconds.items()}


def report(
    rates: dict[str, list[float]], costs: dict[str, dict[str, float]]
) -> None:
    """Print the table and the profiles."""
    table = Table(title='Images per second and core')
    for header in ('pipeline', 'median', 'lowest', 'highest', 'ratio'):
        table.add_column(
            header, justify='left' if header == 'pipeline' else 'right'
        )
    for name, values in rates.items():
        figures = statistics.median(values), min(values), max(values)
        ratio = statistics.median(
            ours / usual
            for ours, usual in zip(values, rates[USUAL], strict=True)
        )
        table.add_row(name, *(f'{f:.1f}' for f in figures), f'{ratio:.2f}')
    console = Console()
    console.print(table)
    for name, stages in costs.items():
        total = sum(stages.values())
        shares = ', '.join(
            f'{stage} {cost:.2f} ({cost / total:.0%})'
            for stage, cost in stages.items()
        )
        console.print(f'{name}, ms per image: {shares}; in all {total:.2f}')


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
        ('images', 64, 1, 'images in a round'),
        ('rounds', 5, 1, 'rounds of each pipeline, after one to warm up'),
        ('local', 8, 0, 'local views per image'),
        ('seed', 0, 0, 'seed of the made images and of the augmentation'),
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, return its exit code."""
    args = parse_args(argv)
    init_default_scope('mmpretrain')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            try:
                dataset = ImageFiles(data_root=args.data)
            except FileNotFoundError:
                print(
                    f'error: no images in --data {args.data}', file=sys.stderr
                )
                return 2
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
        packed = pack(paths, f'{folder}/shards')
        pipelines = {
            'ours': (ours(), paths),
            'reduced decode': (ours(reduced=True), paths),
            'tar shards': (ours(), packed),
            'colour on device': (ours(color_on_device=True), paths),
            USUAL: (usual_pipeline(args.local), paths),
        }
        rates: dict[str, list[float]] = {name: [] for name in pipelines}
        for turn in range(args.rounds + 1):
            for name, pipeline in pipelines.items():
                rate = measure(*pipeline)
                if turn > 0:  # the first fills caches
                    rates[name].append(rate)
        costs = {
            name: profile(*pipelines[name])
            for name in ('ours', 'reduced decode')
        }
    report(rates, costs)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
