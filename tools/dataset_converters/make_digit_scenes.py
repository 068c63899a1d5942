#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a small data set of handwritten digits over photographs, offline.

Everything comes from files that scikit-learn installs: 1797 handwritten
digits of 8x8 pixels and two photographs. A scene holds one large main digit,
the label of the image, and up to three small digits behind it. No digit and
no part of a photograph is used by both splits.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import cv2
import numpy as np
from making import maker
from scenes import SPLITS, Source, make_scenes, random_affine, scene_parser

EXAMPLES = """
examples:
  # data/digit-scenes, as configs/*/*_digits.py and the demo take them
  python tools/dataset_converters/make_digit_scenes.py
  # a few, to try something with
  python tools/dataset_converters/make_digit_scenes.py --train 300 --val 60 \\
      --out data/few-digits
"""
CLASSES = tuple('0123456789')
SHARE = (0.25, 0.9)  # small parts of the two photographs, of 640 x 427 px


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
        s: Source(
            *(CLASSES, ink[rows[s]], labels[rows[s]], np.array(rows[s])),
            *(photos[s], SHARE, place_digit, paint_digit),
        )
        for s in SPLITS
    }


def place_digit(
    ink: np.ndarray, size: int, extent: tuple[float, float], rng: Any
) -> tuple[np.ndarray, None]:
    """Put a digit, (10, 10) float32 ink, into the image; see ``Source``."""
    ink = cv2.resize(ink, (60, 60), interpolation=cv2.INTER_CUBIC)
    affine = random_affine(ink > 0.45, size, extent, rng)
    soft = cv2.warpAffine(ink, affine, (size, size))
    return np.clip((soft - 0.35) / 0.2, 0, 1), None


def paint_digit(
    image: np.ndarray, opacity: np.ndarray, _: None, rng: Any
) -> None:
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


@maker
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made or already there, 1: writing failed, 2: OUT holds other things,
    130: interrupted. OUT is as it was unless the code is 0.
    """
    out = 'data/digit-scenes'
    parser = scene_parser(__doc__, EXAMPLES, out, train=3000, val=600)
    args = parser.parse_args(argv)
    return make_scenes(args, 'make_digit_scenes', load_sources)


if __name__ == '__main__':
    raise SystemExit(main())
