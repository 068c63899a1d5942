#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a data set of garments over photographs, from files of yours.

Takes the four files of Fashion-MNIST (60,000 training and 10,000 test pictures
of 28x28 pixels, e.g. train-images-idx3-ubyte.gz) and a folder of photographs,
such as desktop backgrounds. Nothing is downloaded. A scene holds one large
main garment, the label of the image, and up to three small ones behind it.
No garment and no photograph is used by both splits: val has the test
pictures, and the last quarter of the photographs by name.
"""

import gzip
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from making import maker
from scenes import SPLITS, Source, make_scenes, random_affine, scene_parser

EXAMPLES = """
examples:
  python tools/dataset_converters/make_fashion_scenes.py \\
      --fashion data/fashion-mnist --photos /usr/share/backgrounds
"""
CLASSES = (
    *('tshirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt'),
    *('sneaker', 'bag', 'ankle_boot'),
)
STEMS = {'train': 'train', 'val': 't10k'}  # of the files of each split
SHARE = (0.6, 2.0)
LARGEST = 3  # image sides that the shorter side of a photograph keeps
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
INK, LEAST = 8, 20  # gray level and number of the pixels that show a garment


def load_sources(fashion: Path, photos: Path, size: int) -> dict[str, Source]:
    """Load garments and photographs as two disjoint splits.

    Train has the training garments and the first three quarters of the
    photographs by name, val the test garments and the others.

    Args:
        fashion (Path): Folder of Fashion-MNIST's four files.
        photos (Path): Folder of photographs, at any depth.
        size (int): Side of the images, px.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A file is not what it should be, or the photographs are
            too few.
    """
    garments = {split: load_garments(fashion, split) for split in SPLITS}
    found = load_photos(photos, size)
    cut = min(round(0.75 * len(found)), len(found) - 1)
    backgrounds = {'train': found[:cut], 'val': found[cut:]}
    return {
        split: Source(
            *(CLASSES, *garments[split], backgrounds[split]),
            *(SHARE, place_garment, paint_garment),
        )
        for split in SPLITS
    }


def load_garments(
    folder: Path, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pictures (n, 28, 28), classes and places of a split.

    Raises:
        OSError, ValueError: As :func:`load_sources`.
    """
    stem = STEMS[split]
    images = read_idx(folder / f'{stem}-images-idx3-ubyte', 3)
    labels = read_idx(folder / f'{stem}-labels-idx1-ubyte', 1).astype(int)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise ValueError(
            f'--fashion {folder}: {stem} has pictures of shape '
            f'{images.shape} and {len(labels)} labels, not as many pictures '
            'of 28 x 28 px: copy the files again'
        )
    rows = np.flatnonzero((images > INK).sum((1, 2)) >= LEAST)
    lacking = {*range(len(CLASSES))} ^ {*labels[rows].tolist()}
    if lacking:
        raise ValueError(
            f'--fashion {folder}: {stem} must have the classes 0 to '
            f'{len(CLASSES) - 1}, but lacks or adds {sorted(lacking)}: copy '
            'the files again'
        )
    return images[rows], labels[rows], rows


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read bytes in the IDX format, compressed or not.

    Raises:
        FileNotFoundError: It does not exist, with or without .gz.
        ValueError: It is damaged, or has another number of dimensions.
    """
    packed = path.with_name(f'{path.name}.gz')
    file = packed if packed.is_file() else path
    if not file.is_file():
        raise FileNotFoundError(
            f'--fashion {path.parent} lacks {path.name}, also {packed.name}: '
            "name the folder of Fashion-MNIST's four files"
        )
    try:
        with (gzip.open if file == packed else open)(file, 'rb') as stream:
            raw = stream.read()
        shape = np.frombuffer(raw, '>u4', ndim, 4).tolist()
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f'{file} is not a whole IDX file of bytes in {ndim} dimensions '
            f'({error}): copy it again'
        ) from error


def load_photos(folder: Path, size: int) -> list[np.ndarray]:
    """Return the photographs of a folder, by name, at most LARGEST sizes.

    Links are left out, as they could bring one photograph into both splits;
    and what is smaller than ``size`` px or cannot be read.

    Raises:
        ValueError: There are less than two.
    """
    found = []
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in SUFFIXES or path.is_symlink():
            continue
        photo = cv2.imread(str(path))
        side = 0 if photo is None else min(photo.shape[:2])
        if side < size:
            continue
        if side > LARGEST * size:
            scale = LARGEST * size / side
            how = cv2.INTER_AREA
            photo = cv2.resize(photo, None, None, scale, scale, how)
        found.append(photo)
    if len(found) < 2:
        raise ValueError(
            f'--photos {folder} has {len(found)} photographs '
            f'({", ".join(SUFFIXES)}) of at least {size} px, but each split '
            'needs one: name another folder, or a smaller --size'
        )
    return found


def place_garment(
    picture: np.ndarray, size: int, extent: tuple[float, float], rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Put a garment, (28, 28) uint8, into the image; see ``Source``.

    Its look are its gray values, float32 (size, size), 0 to 1.
    """
    if rng.random() < 0.5:
        picture = cv2.flip(picture, 1)
    gray = cv2.resize(picture, (84, 84), interpolation=cv2.INTER_CUBIC)
    shape = np.where(picture > INK, 1, 0).astype(np.float32)
    shape = cv2.resize(shape, (84, 84), interpolation=cv2.INTER_LINEAR)
    shape = cv2.morphologyEx(shape, cv2.MORPH_CLOSE, np.ones((7, 7)))
    affine = random_affine(shape > 0.5, size, extent, rng)
    soft = cv2.warpAffine(shape, affine, (size, size))
    look = cv2.warpAffine(gray.astype(np.float32) / 255, affine, (size, size))
    return np.clip((soft - 0.35) / 0.3, 0, 1), look


def paint_garment(
    image: np.ndarray, opacity: np.ndarray, look: np.ndarray, rng: Any
) -> None:
    """Blend a garment in a tint of its gray values; see ``Source``."""
    tint = rng.uniform(0.45, 1.25, 3).astype(np.float32)
    color = np.clip(40 + 217 * look[..., None] * tint, 0, 255)
    image += opacity[..., None] * (color - image)


@maker
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code, as make_digit_scenes.py."""
    out = 'data/fashion-scenes'
    parser = scene_parser(__doc__, EXAMPLES, out, train=5000, val=1000)
    for name, text in (
        ('fashion', "folder of Fashion-MNIST's four files, .gz or not"),
        ('photos', 'folder of photographs, at any depth; two at least'),
    ):
        parser.add_argument(
            f'--{name}', type=Path, required=True, metavar='DIR', help=text
        )
    args = parser.parse_args(argv)
    material = args.fashion, args.photos, args.size
    return make_scenes(
        args,
        'make_fashion_scenes',
        partial(load_sources, *material),
        fashion=str(args.fashion),
        photos=str(args.photos),
    )


if __name__ == '__main__':
    raise SystemExit(main())
