# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Scenes of objects over photographs, and the data sets made of them.

What make_digit_scenes.py and make_fashion_scenes.py share. A scene holds one
large main object, the label of the image, and up to three small ones.
"""

import argparse
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from making import is_made, made_whole, maker_parser
from rich.console import Console
from rich.progress import track

LAYOUT = """
Written below OUT, three views of the same images:
  train/<class>/00000.jpg, val/<class>/00000.jpg   one folder per class
  annotations/instances_{train,val}.json           COCO boxes and polygons
  VOC2007/{JPEGImages,Annotations,ImageSets/Main}  Pascal VOC: trainval, test
  meta.json                                        the settings, written last

The files do not depend on --workers. OUT appears only once it is complete.
"""
SPLITS = {'train': 'trainval', 'val': 'test'}  # and their Pascal VOC names
MAIN_EXTENT, SMALL_EXTENT = (0.42, 0.72), (0.16, 0.34)  # of the image side
MIN_PIXELS, MIN_VISIBLE, MAX_OF_MAIN = 16, 0.4, 0.7  # visible small objects
CHUNK = 16  # scenes that a worker takes at a time


class Source(NamedTuple):
    """The material of one split.

    Attributes:
        classes (tuple[str, ...]): Names.
        objects (np.ndarray): Pictures of objects, (n, h, w).
        labels (np.ndarray): Their classes, (n,) int.
        samples (np.ndarray): Their places in the data they come from, (n,)
            int.
        photos (list[np.ndarray]): (h, w, 3) uint8 BGR, for backgrounds.
        share (tuple[float, float]): Range of the side of a photograph's part
            that becomes the background, as a part of the image side.
        place (Callable): ``place(picture, size, extent, rng)`` puts an object
            somewhere into the image. ``extent`` is the range of its longer
            side, as a part of ``size`` px. Returns (size, size) float32
            opacity, 0 to 1, and what ``paint`` wants to know of its look.
        paint (Callable): ``paint(image, opacity, look, rng)`` blends it into
            a (size, size, 3) float32 BGR image.
    """

    classes: tuple[str, ...]
    objects: np.ndarray
    labels: np.ndarray
    samples: np.ndarray
    photos: list[np.ndarray]
    share: tuple[float, float]
    place: Callable[..., tuple[np.ndarray, Any]]
    paint: Callable[..., None]


_SOURCES: dict[str, Source] = {}  # filled once per process


def rotation(degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a (2, 2) rotation by at most ``degrees`` to either side."""
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    sin, cos = np.sin(angle), np.cos(angle)
    return np.array([[cos, -sin], [sin, cos]])


def fit(
    solid: np.ndarray,
    turn: np.ndarray,
    size: int,
    extent: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the scale of an object, (h, w) bool, that ``turn`` turns.

    Returns the scaled (2, 2) turn, and the least and the largest shift (2,)
    by which the object stays within the image of ``size`` px.
    """
    spots = np.argwhere(solid)[:, ::-1] @ turn.T
    first, last = spots.min(axis=0), spots.max(axis=0)
    scale = rng.uniform(*extent) * size / (last - first).max()
    return scale * turn, 1 - scale * first, size - 2 - scale * last


def random_affine(
    solid: np.ndarray, size: int, extent: tuple[float, float], rng: Any
) -> np.ndarray:
    """Draw how an object is turned (within 30 degrees), scaled and shifted.

    ``solid`` is (h, w) bool. Returns the (2, 3) affine map from it into the
    image, which it does not leave.
    """
    turn, low, high = fit(solid, rotation(30, rng), size, extent, rng)
    return np.column_stack([turn, rng.uniform(low, high)])


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a JPEG file; raises OSError, unlike cv2.imwrite."""
    jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    path.write_bytes(jpeg.tobytes())


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace an (h, w) uint8 mask.

    Returns one [x, y, x, y, ...] per connected part, in pixels, where pixel
    (0, 0) covers 0..1. A hole is joined to its part by a bridge of no width,
    because COCO polygons have no holes.
    """
    # Tracing at twice the size keeps strokes of one pixel from collapsing.
    x, y, w, h = cv2.boundingRect(mask)
    big = mask[y : y + h, x : x + w].repeat(2, axis=0).repeat(2, axis=1)
    how = (cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours, tree = cv2.findContours(big, *how, offset=(2 * x, 2 * y))
    rings = [cv2.approxPolyDP(c, 0.7, True).reshape(-1, 2) for c in contours]
    parts = {i: ring for i, ring in enumerate(rings) if tree[0, i, 3] < 0}
    for hole, parent in zip(rings, tree[0, :, 3], strict=True):
        if parent >= 0:
            part = parts[parent]
            gaps = np.square(part[:, None] - hole[None]).sum(axis=-1)
            at, start = np.unravel_index(gaps.argmin(), gaps.shape)
            tour = np.roll(hole, -start, axis=0)
            tour = [part[: at + 1], tour, tour[:1], part[at:]]
            parts[parent] = np.concatenate(tour)
    return [((ring + 0.5) / 2).ravel().tolist() for ring in parts.values()]


def compose_scene(
    source: Source, label: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Compose a scene whose main object is of the class ``label``.

    Returns the (size, size, 3) uint8 BGR image, and for every object in it
    the row in ``source`` and the (size, size) uint8 mask of its visible part.
    The main object comes first, is whole and has the largest mask.
    """
    layers, found = [], []
    covered = np.zeros((size, size), bool)
    row, extent = rng.choice(np.where(source.labels == label)[0]), MAIN_EXTENT
    least, most, wanted = 0, size**2, 1 + rng.integers(4)
    # From front to back, so an object that would hardly be seen is left out of
    # the picture too, not only out of the annotations.
    for _ in range(4 * wanted):
        layer = source.place(source.objects[row], size, extent, rng)
        solid = layer[0] > 0.5
        mask = (solid & ~covered).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
        if count > 2:  # crumbs, which would stretch the box
            mask[stats[parts, cv2.CC_STAT_AREA] < 8] = 0
        if max(least, MIN_VISIBLE * solid.sum()) <= mask.sum() <= most:
            layers.append(layer)
            found.append((row, mask))
            covered |= solid
        if len(found) == wanted:
            break
        row, extent = rng.integers(len(source.labels)), SMALL_EXTENT
        least, most = MIN_PIXELS, MAX_OF_MAIN * found[0][1].sum()

    photo = source.photos[rng.integers(len(source.photos))]
    # Parts, turned and tinted: few photographs, many backgrounds.
    side = int(min(size * rng.uniform(*source.share), *photo.shape[:2]))
    y, x = (rng.integers(n - side + 1) for n in photo.shape[:2])
    photo = photo[y : y + side, x : x + side]
    image = cv2.resize(photo, (size, size))
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    image = np.rot90(image, rng.integers(4))
    image = image * rng.uniform(0.4, 1.4, 3).astype(np.float32)
    for layer in reversed(layers):
        source.paint(image, *layer, rng)
    grain = rng.standard_normal((size, size), np.float32) * rng.uniform(1, 6)
    grain = cv2.merge([grain.astype(np.float32)] * 3)
    return cv2.add(image, grain, dtype=cv2.CV_8U), found


def voc_xml(
    stem: str, size: int, objects: list[dict[str, Any]], classes: Sequence[str]
) -> bytes:
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
        name = classes[item['category_id'] - 1]
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
    without ids; ``sample_id`` is that of the object's source. Raises OSError.
    """
    source = _SOURCES[split]
    label = index % len(source.classes)
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    image, found = compose_scene(source, label, size, rng)
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
    name = f'{source.classes[label]}/{index:05d}.jpg'
    stem = f'{split}_{index:05d}'
    voc = root / 'VOC2007'
    for path in (root / split / name, voc / 'JPEGImages' / f'{stem}.jpg'):
        write_jpeg(path, image)
    xml = voc_xml(stem, size, objects, source.classes)
    (voc / 'Annotations' / f'{stem}.xml').write_bytes(xml)
    return name, objects


def start_worker(sources: dict[str, Source]) -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    cv2.setNumThreads(0)
    _SOURCES.update(sources)


def build(
    root: Path, meta: dict[str, Any], sources: dict[str, Source], workers: int
) -> None:
    """Write a whole data set into the empty folder ``root``.

    Raises OSError, or BrokenExecutor if a worker has ended.
    """
    names = ('JPEGImages', 'Annotations', 'ImageSets/Main')
    folders = ['annotations', *(f'VOC2007/{name}' for name in names)]
    # Classes without images too: their numbers come from the folder names.
    folders += [f'{s}/{name}' for s in SPLITS for name in sources[s].classes]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    _SOURCES.update(sources)
    with ExitStack() as stack:
        mapper: Callable[..., Any] = map
        if workers:
            spawn = multiprocessing.get_context('spawn')
            useful = min(workers, -(-(meta['train'] + meta['val']) // CHUNK))
            pool = ProcessPoolExecutor(useful, spawn, start_worker, [sources])
            stack.callback(pool.shutdown, cancel_futures=True)
            mapper = partial(pool.map, chunksize=CHUNK)
        for split in SPLITS:
            start = time.monotonic()
            objects = write_split(root, split, meta, mapper)
            text = f'{split}: {meta[split]} scenes, {objects} objects'
            print(f'{text}, {time.monotonic() - start:.1f} s')


def write_split(
    root: Path, split: str, meta: dict[str, Any], mapper: Callable[..., Any]
) -> int:
    """Write the scenes and listings of a split, return its object count."""
    size, count = meta['size'], meta[split]
    classes = _SOURCES[split].classes
    where = {'split': split, 'root': root, 'size': size, 'seed': meta['seed']}
    scenes = mapper(partial(write_scene, **where), range(count))
    console = Console(stderr=True)
    scenes = track(scenes, split, count, console=console, transient=True)
    categories = [{'id': i, 'name': name} for i, name in enumerate(classes, 1)]
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


def scene_parser(
    description: str, examples: str, out: str, train: int, val: int
) -> argparse.ArgumentParser:
    """Return the parser of a maker of scenes.

    Args:
        description (str): What it makes; :data:`LAYOUT` follows.
        examples (str): How it is called.
        out (str): Default folder to make.
        train (int): Default number of training scenes.
        val (int): Default number of validation scenes.
    """
    return maker_parser(
        f'{description}{LAYOUT}',
        examples,
        out,
        train=('training scenes', train, 1, 99999),
        val=('validation scenes', val, 1, 99999),
        size=('side of the square images in pixels', 160, 64, 1024),
        workers=('processes, 0 for this one only', os.cpu_count(), 0, 999),
    )


def make_scenes(
    args: argparse.Namespace,
    tool: str,
    load: Callable[[], dict[str, Source]],
    **facts: Any,
) -> int:
    """Make the scenes of a command line, unless they are there.

    Args:
        args (Namespace): What :func:`scene_parser` parsed.
        tool (str): The maker's name.
        load (Callable): Returns the material by split.
        **facts (Any): What else the scenes depend on, for meta.json.

    Returns:
        int: The command's exit code, 0.

    Raises:
        ValueError: OUT holds other things, or the material cannot be used.
        OSError: A file cannot be read or written.
    """
    names = ('train', 'val', 'size', 'seed')
    meta = {'tool': tool, 'format': 1}
    meta |= {name: getattr(args, name) for name in names} | facts
    if not is_made(args, meta):
        sources = load()
        with made_whole(args.out, meta) as root:
            build(root, meta, sources, args.workers)
    return 0
