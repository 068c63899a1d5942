#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make cards with one handwritten digit each, to pre-train on, offline.

The digits are those of scikit-learn that make_digit_scenes.py composes its
training scenes of, bright on a gray card. All cards have the same gray and
ink, and digits of nearly the same size and angle: a pre-training finds what
tells images apart, so nothing but the digit's shape may. With photographs
behind the digits it finds the photographs.

Written below OUT: train/00000.jpg and so on, and meta.json. The files depend
on --number, --size and --seed. OUT appears only once it is complete.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from digit_scenes import load_sources
from making import holds_anything, made_whole
from rich.console import Console
from rich.progress import track
from scenes import number_between

EXAMPLES = """
examples:
  # data/digit-cards, as configs/scfs/*_digit-cards.py takes them
  python tools/dataset_converters/make_digit_cards.py
  # a few, to look at
  python tools/dataset_converters/make_digit_cards.py --number 100 \\
      --out data/few-cards
"""
CARD, INK, GRAIN = 90, 185, 4  # gray levels
EXTENT = (0.68, 0.8)  # of the image side
DEGREES, STRETCH = 12, 1.1
SHIFT = 0.15  # of the free room to both sides


def draw_card(
    ink: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a digit of (10, 10) float32 ink; returns (size, size) uint8."""
    ink = cv2.resize(ink, (60, 60), interpolation=cv2.INTER_CUBIC)
    angle = np.deg2rad(rng.uniform(-DEGREES, DEGREES))
    sin, cos = np.sin(angle), np.cos(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    turn = turn @ np.diag(rng.uniform(1 / STRETCH, STRETCH, 2))
    spots = np.argwhere(ink > 0.45)[:, ::-1] @ turn.T
    first, last = spots.min(axis=0), spots.max(axis=0)
    scale = rng.uniform(*EXTENT) * size / (last - first).max()
    low, high = 1 - scale * first, size - 2 - scale * last
    shift = (low + high) / 2 + rng.uniform(-SHIFT, SHIFT, 2) * (high - low)
    affine = np.column_stack([scale * turn, shift])
    soft = cv2.warpAffine(ink, affine, (size, size))
    card = CARD + (INK - CARD) * np.clip((soft - 0.35) / 0.2, 0, 1)
    card += GRAIN * rng.standard_normal((size, size))
    return np.clip(np.rint(card), 0, 255).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: made or already there, 1: writing failed, 2: OUT holds other things,
    130: interrupted. OUT is as it was unless the code is 0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data/digit-cards'),
        help='folder to make (default: %(default)s)',
    )
    for name, default, low, high, text in (
        ('number', 12933, 1, 99999, 'cards; 1437 digits take turns'),
        ('size', 96, 32, 1024, 'side of the square images in pixels'),
        ('seed', 0, 0, 2**32 - 1, 'seed of everything random'),
    ):
        parser.add_argument(
            f'--{name}',
            type=number_between(low, high),
            default=default,
            metavar='N',
            help=f'{text}, {low} to {high} (default: %(default)s)',
        )
    args = parser.parse_args(argv)
    meta = {'tool': 'make_digit_cards', 'number': args.number}
    meta |= {'size': args.size, 'seed': args.seed}
    text = json.dumps(meta, indent=2) + '\n'
    if holds_anything(args.out):
        file = args.out / 'meta.json'
        if file.is_file() and file.read_text() == text:
            print(f'{args.out} already holds these cards, nothing to do')
            return 0
        print(f'error: --out {args.out} holds other things', file=sys.stderr)
        return 2
    digits = load_sources()['train'].objects
    try:
        with made_whole(args.out) as new:
            (new / 'train').mkdir()
            console = Console(stderr=True)
            for index in track(range(args.number), 'cards', console=console):
                rng = np.random.default_rng([args.seed, index])
                card = draw_card(digits[index % len(digits)], args.size, rng)
                quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
                # Not cv2.imwrite, which does not raise on a full disk.
                jpeg = cv2.imencode('.jpg', card, quality)[1].tobytes()
                (new / 'train' / f'{index:05d}.jpg').write_bytes(jpeg)
            (new / 'meta.json').write_text(text)
    except OSError as error:
        print(f'error: cannot make {args.out}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.out} is unchanged', file=sys.stderr)
        return 130
    print(f'{args.out}: {args.number} cards')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
