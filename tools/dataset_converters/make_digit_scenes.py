# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a small data set of handwritten digits over photographs, offline.

Everything comes from files that scikit-learn installs: 1797 handwritten
digits of 8x8 pixels and two photographs. A scene holds one large main digit,
the label of the image, and up to three small digits behind it.

Written below OUT, all three views sharing the same JPEG files:
  train/<digit>/00000.jpg, val/<digit>/00000.jpg   one folder per class
  annotations/instances_{train,val}.json           COCO boxes and polygons
  VOC2007/{JPEGImages,Annotations,ImageSets/Main}  Pascal VOC: trainval, test
  meta.json                                        the settings, written last

No digit and no part of a photograph is used by both splits. The files depend
on --train, --val, --size and --seed, not on --workers. OUT appears only once
it is complete.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from digit_scenes import (
    CLASSES,
    SPLITS,
    Source,
    compose_scene,
    load_sources,
    mask_to_polygons,
)
from making import holds_anything, made_whole
from rich.console import Console
from rich.progress import track

EXAMPLES = """
examples:
  # data/digit-scenes, as the demo takes it
  python tools/dataset_converters/make_digit_scenes.py
  # a few, to try something with
  python tools/dataset_converters/make_digit_scenes.py --train 300 --val 60 \\
      --out data/few-digits
"""
CHUNK = 16  # scenes that a worker takes at a time
_SOURCES: dict[str, Source] = {}  # filled once per process


def voc_xml(stem: str, size: int, objects: list[dict[str, Any]]) -> bytes:
    """Return the Pascal VOC annotation, boxes 1-based and inclusive."""

    def node(tag: str, **children: Any) -> ElementTree.Element:
        element = ElementTree.Element(tag)
        for key, value in children.items():
            ElementTree.SubElement(element, key).text = str(value)
        return element

    top = node('annotation', folder='VOC2007', filename=f'{stem}.jpg')
    top.append(node('size', width=size, height=size, depth=3))
    for item in objects:
        x, y, w, h = item['bbox']
        name = CLASSES[item['category_id'] - 1]
        flags = {'pose': 'Unspecified', 'truncated': 0, 'difficult': 0}
        top.append(node('object', name=name, **flags))
        box = node('bndbox', xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
        top[-1].append(box)
    ElementTree.indent(top)
    return ElementTree.tostring(top)


def write_scene(
    index: int, split: str, root: Path, size: int, seed: int
) -> tuple[str, list[dict[str, Any]]]:
    """Make scene ``index`` of a split, write its JPEG and VOC files.

    Returns the path of the image below the split, and its COCO annotations
    without ids; ``sample_id`` is the ``load_digits`` index. Raises OSError.
    """
    source, digit = _SOURCES[split], index % len(CLASSES)
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    image, found = compose_scene(source, digit, size, rng)
    objects = [
        {
            'category_id': int(source.labels[row]) + 1,
            'bbox': list(cv2.boundingRect(mask)),
            'area': int(mask.sum()),
            'segmentation': mask_to_polygons(mask),
            'iscrowd': 0,
            'sample_id': int(source.samples[row]),
        }
        for row, mask in found
    ]
    name, stem = f'{CLASSES[digit]}/{index:05d}.jpg', f'{split}_{index:05d}'
    path, voc = root / split / name, root / 'VOC2007'
    # Not cv2.imwrite, which does not raise when the disk is full.
    jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    path.write_bytes(jpeg.tobytes())
    view = voc / 'JPEGImages' / f'{stem}.jpg'
    try:
        os.link(path, view)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, view)
    xml = voc_xml(stem, size, objects)
    (voc / 'Annotations' / f'{stem}.xml').write_bytes(xml)
    return name, objects


def start_worker(sources: dict[str, Source]) -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    cv2.setNumThreads(0)
    _SOURCES.update(sources)


def build(root: Path, meta: dict[str, Any], workers: int) -> None:
    """Write a whole data set into the empty folder ``root``."""
    names = ('JPEGImages', 'Annotations', 'ImageSets/Main')
    folders = ['annotations', *(f'VOC2007/{name}' for name in names)]
    # Classes without images too: their numbers come from the folder names.
    folders += [f'{split}/{name}' for split in SPLITS for name in CLASSES]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    _SOURCES.update(load_sources())
    with ExitStack() as stack:
        mapper: Callable[..., Any] = map
        if workers:
            spawn = multiprocessing.get_context('spawn')
            useful = min(workers, -(-(meta['train'] + meta['val']) // CHUNK))
            pool = ProcessPoolExecutor(useful, spawn, start_worker, [_SOURCES])
            stack.callback(pool.shutdown, cancel_futures=True)
            mapper = partial(pool.map, chunksize=CHUNK)
        for split in SPLITS:
            start = time.monotonic()
            objects = write_split(root, split, meta, mapper)
            text = f'{split}: {meta[split]} scenes, {objects} objects'
            print(f'{text}, {time.monotonic() - start:.1f} s')
    (root / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')


def write_split(
    root: Path, split: str, meta: dict[str, Any], mapper: Callable[..., Any]
) -> int:
    """Write the scenes and listings of a split, return its object count."""
    size, count = meta['size'], meta[split]
    where = {'split': split, 'root': root, 'size': size, 'seed': meta['seed']}
    scenes = mapper(partial(write_scene, **where), range(count))
    console = Console(stderr=True)
    scenes = track(scenes, split, count, console=console, transient=True)
    categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, 1)]
    coco: dict[str, list[dict[str, Any]]]
    coco = {'images': [], 'annotations': [], 'categories': categories}
    shape = {'height': size, 'width': size}
    for image_id, (name, objects) in enumerate(scenes, 1):
        coco['images'].append({'id': image_id, 'file_name': name, **shape})
        for item in objects:
            ids = {'id': len(coco['annotations']) + 1, 'image_id': image_id}
            coco['annotations'].append(ids | item)
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(coco, separators=(',', ':')))
    listing = root / 'VOC2007/ImageSets/Main' / f'{SPLITS[split]}.txt'
    listing.write_text(''.join(f'{split}_{i:05d}\n' for i in range(count)))
    return len(coco['annotations'])


def is_made(out: Path, meta: dict[str, Any], overwrite: bool) -> bool:
    """Tell whether ``out`` already holds what ``meta`` describes.

    Raises ValueError if it holds something else that must stay.
    """
    if not holds_anything(out):
        return False
    try:
        found = dict(json.loads((out / 'meta.json').read_text()))
    except (OSError, TypeError, ValueError):
        found = {}
    if found.get('tool') != meta['tool']:
        raise ValueError(
            f'--out {out} was not made by this tool, choose another --out'
        )
    for split in SPLITS:  # what is really there, in case files were removed
        found[split] = sum(1 for _ in (out / split).glob('*/*.jpg'))
    for key, value in meta.items():
        if found.get(key) != value and not overwrite:
            raise ValueError(
                f'--out {out} was made with {key} {found.get(key)}, not '
                f'{value}: choose another --out or pass --overwrite'
            )
    return not overwrite


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""

    def number(text: str, low: int, high: float) -> int:
        with suppress(ValueError):
            if low <= int(text) <= high:
                return int(text)
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a whole number from {low} to {high}'
        )

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    out = Path('data/digit-scenes')
    text = 'folder to make (default: %(default)s)'
    parser.add_argument('--out', type=Path, default=out, help=text)
    for name, default, low, high, text in (
        ('train', 3000, 1, 99999, 'training scenes'),
        ('val', 600, 1, 99999, 'validation scenes'),
        ('size', 160, 64, 1024, 'side of the square images in pixels'),
        ('seed', 0, 0, 2**32 - 1, 'seed of everything random'),
        ('workers', os.cpu_count(), 0, 999, 'processes, 0 for this one only'),
    ):
        parser.add_argument(
            f'--{name}',
            type=partial(number, low=low, high=high),
            default=default,
            metavar='N',
            help=f'{text}, {low} to {high} (default: %(default)s)',
        )
    text = 'replace OUT if its meta.json shows that this tool made it'
    parser.add_argument('--overwrite', action='store_true', help=text)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made or already there, 1: writing failed, 2: OUT holds other things,
    130: interrupted. OUT is as it was unless the code is 0.
    """
    args = parse_args(argv)
    meta: dict[str, Any] = {'tool': 'make_digit_scenes', 'format': 1}
    meta |= {k: getattr(args, k) for k in ('train', 'val', 'size', 'seed')}
    try:
        if is_made(args.out, meta, args.overwrite):
            print(f'{args.out} already holds these scenes, nothing to do')
            return 0
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        with made_whole(args.out) as new:
            build(new, meta, args.workers)
    except (OSError, BrokenExecutor) as error:
        print(f'error: cannot make {args.out}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.out} is unchanged', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
