#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make cards with one handwritten digit each, to pre-train on, offline.

The digits are those of scikit-learn that make_digit_scenes.py composes its
training scenes of, bright on a gray card. All cards have the same gray and
ink, and digits of nearly the same size and angle: a pre-training learns what
tells images apart, and here only the digit's shape does. With photographs
behind the digits it would learn the photographs.

Written below OUT: train/00000.jpg and so on, and meta.json. OUT appears only
once it is complete.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from make_digit_scenes import load_sources
from making import is_made, made_whole, maker, maker_parser
from rich.console import Console
from rich.progress import track
from scenes import fit, rotation, write_jpeg

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
    turn = rotation(DEGREES, rng)
    turn = turn @ np.diag(rng.uniform(1 / STRETCH, STRETCH, 2))
    turn, low, high = fit(ink > 0.45, turn, size, EXTENT, rng)
    shift = (low + high) / 2 + rng.uniform(-SHIFT, SHIFT, 2) * (high - low)
    soft = cv2.warpAffine(ink, np.column_stack([turn, shift]), (size, size))
    card = CARD + (INK - CARD) * np.clip((soft - 0.35) / 0.2, 0, 1)
    card += GRAIN * rng.standard_normal((size, size))
    return np.clip(np.rint(card), 0, 255).astype(np.uint8)


@maker
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code, as make_digit_scenes.py."""
    args = maker_parser(
        __doc__,
        EXAMPLES,
        'data/digit-cards',
        number=('number of cards; 1437 digits take turns', 12933, 1, 99999),
        size=('side of the square images in pixels', 96, 32, 1024),
    ).parse_args(argv)
    meta = {'tool': 'make_digit_cards', 'number': args.number}
    meta |= {'size': args.size, 'seed': args.seed}
    if is_made(args, meta):
        return 0
    digits = load_sources()['train'].objects
    console = Console(stderr=True)
    with made_whole(args.out, meta) as root:
        (root / 'train').mkdir()
        for index in track(range(args.number), 'cards', console=console):
            rng = np.random.default_rng([args.seed, index])
            card = draw_card(digits[index % len(digits)], args.size, rng)
            write_jpeg(root / 'train' / f'{index:05d}.jpg', card)
    print(f'{args.out}: {args.number} cards')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
