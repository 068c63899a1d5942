# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The scenes of make_digit_scenes.py: handwritten digits over photographs.

Everything comes from files that scikit-learn installs.
"""

from importlib import resources
from typing import Any, NamedTuple

import cv2
import numpy as np

SPLITS = {'train': 'trainval', 'val': 'test'}  # and their Pascal VOC names
CLASSES = tuple('0123456789')
MAIN_EXTENT, SMALL_EXTENT = (0.42, 0.72), (0.16, 0.34)  # of the image side
MIN_PIXELS, MIN_VISIBLE, MAX_OF_MAIN = 16, 0.4, 0.7  # visible small digits


class Source(NamedTuple):
    """The material of one split."""

    digits: np.ndarray  # (n, 10, 10) float32, ink 0 to 1, with a clear rim
    labels: np.ndarray  # (n,) int, the digit that each of them shows
    samples: np.ndarray  # (n,) int, their indices in load_digits
    photos: list[np.ndarray]  # (h, w, 3) uint8 BGR, regions of photographs


def load_sources() -> dict[str, Source]:
    """Load digits and photographs as two disjoint splits.

    The last 20 % of the samples of every class and the right 30 % of every
    photograph are for val, the rest is for train.
    """
    from sklearn.datasets import load_digits  # slow, and workers do without

    bunch = load_digits()
    rows: dict[str, list[int]] = {'train': [], 'val': []}
    for digit in range(len(CLASSES)):
        members = np.flatnonzero(bunch.target == digit).tolist()
        cut = round(0.8 * len(members))
        rows['train'] += members[:cut]
        rows['val'] += members[cut:]
    photos: dict[str, list[np.ndarray]] = {'train': [], 'val': []}
    for name in ('china.jpg', 'flower.jpg'):
        # Not by load_sample_images, which would need Pillow as well.
        data = (resources.files('sklearn.datasets.images') / name).read_bytes()
        photo = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        cut = round(0.7 * photo.shape[1])
        photos['train'].append(photo[:, :cut])
        photos['val'].append(photo[:, cut:])
    ink = np.pad(bunch.images / 16, ((0, 0), (1, 1), (1, 1)))
    ink, labels = ink.astype(np.float32), bunch.target
    return {
        s: Source(ink[rows[s]], labels[rows[s]], np.array(rows[s]), photos[s])
        for s in SPLITS
    }


def place_digit(
    ink: np.ndarray, size: int, extent: tuple[float, float], rng: Any
) -> np.ndarray:
    """Scale, rotate (within 30 degrees) and shift a digit into the image.

    ``ink`` is (10, 10) float32 and ``extent`` the range of its longer side,
    as a part of ``size`` pixels. Returns (size, size) float32 opacity, 0 to 1.
    """
    ink = cv2.resize(ink, (60, 60), interpolation=cv2.INTER_CUBIC)
    angle = np.deg2rad(rng.uniform(-30, 30))
    sin, cos = np.sin(angle), np.cos(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    spots = np.argwhere(ink > 0.45)[:, ::-1] @ turn.T
    first, last = spots.min(axis=0), spots.max(axis=0)
    scale = rng.uniform(*extent) * size / (last - first).max()
    low, high = 1 - scale * first, size - 2 - scale * last
    affine = np.column_stack([scale * turn, rng.uniform(low, high)])
    soft = cv2.warpAffine(ink, affine, (size, size))
    return np.clip((soft - 0.35) / 0.2, 0, 1)


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


def paint(image: np.ndarray, opacity: np.ndarray, rng: Any) -> None:
    """Blend a digit of (h, w) opacity into a (h, w, 3) float32 BGR image.

    The tint is bright or dark, whichever its surroundings come less close to.
    """
    x, y, w, h = cv2.boundingRect((opacity > 0).astype(np.uint8))
    area, alpha = image[y : y + h, x : x + w], opacity[y : y + h, x : x + w]
    # Green carries most of the brightness. The quartiles include both sides of
    # an edge in the photograph, but not a small digit in front of it.
    low, high = np.percentile(area[..., 1][alpha > 0], (25, 75))
    tint = rng.uniform(0, 1, 3).astype(np.float32)
    tint = (tint - tint.min()) / np.ptp(tint)
    if 255 - high + rng.uniform(-20, 20) > low:
        tint = 255 - (1 - tint) * rng.uniform(20, 120)
    else:
        tint = tint * rng.uniform(10, 80)
    alpha = alpha[..., None] * np.float32(rng.uniform(0.94, 1))
    area += alpha * (tint.astype(np.float32) - area)


def compose_scene(
    source: Source, digit: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Compose a scene whose main digit is ``digit``.

    Returns the (size, size, 3) uint8 BGR image, and for every digit in it
    the row in ``source`` and the (size, size) uint8 mask of its visible part.
    The main digit comes first, is whole and has the largest mask.
    """
    layers, found = [], []
    covered = np.zeros((size, size), bool)
    row, extent = rng.choice(np.where(source.labels == digit)[0]), MAIN_EXTENT
    least, most, wanted = 0, size**2, 1 + rng.integers(4)
    # From front to back, so a digit that would hardly be seen is left out of
    # the picture too, not only out of the annotations.
    for _ in range(4 * wanted):
        layer = place_digit(source.digits[row], size, extent, rng)
        solid = layer > 0.5
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
    # Small parts, turned and tinted: two photographs, many backgrounds.
    side = int(min(size * rng.uniform(0.25, 0.9), *photo.shape[:2]))
    y, x = (rng.integers(n - side + 1) for n in photo.shape[:2])
    photo = photo[y : y + side, x : x + side]
    image = cv2.resize(photo, (size, size))
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    image = np.rot90(image, rng.integers(4))
    image = image * rng.uniform(0.4, 1.4, 3).astype(np.float32)
    for layer in reversed(layers):
        paint(image, layer, rng)
    grain = rng.standard_normal((size, size), np.float32) * rng.uniform(1, 6)
    grain = cv2.merge([grain.astype(np.float32)] * 3)
    return cv2.add(image, grain, dtype=cv2.CV_8U), found
