#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See the crops of a pre-training as the network gets them.

Draws some training images with the boxes of their global and local crops, and
beside them the crops, after flip, color, blur and solarizing. A label says
what share of the image a crop shows and what was done to it. With MultiCrop
and KeyedSampler they are, to the pixel, those of a run with this seed in this
epoch. Of pipelines without MultiCrop the crops are drawn without boxes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from picture_command import (
    IMAGES,
    add_counts,
    picture_parser,
    read_config,
    write_pictures,
)

EXAMPLES = """
examples:
  python tools/visualization/browse_views.py configs/scfs_r50.py
  # your own images, and another range of local crops
  python tools/visualization/browse_views.py configs/scfs_r50.py \\
      --cfg-options train_dataloader.dataset.data_root=my/images \\
      train_dataloader.dataset.data_prefix='' \\
      multi_crop.local_scale="(0.05,0.14)"
  # the third epoch of a run with seed 1
  python tools/visualization/browse_views.py configs/scfs_r50.py \\
      --seed 1 --epoch 3 --number 10
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = picture_parser(
        __doc__,
        EXAMPLES,
        'views.png',
        'config of a pre-training',
        'train_dataloader.dataset.data_root=my/images',
    )
    parser.add_argument(
        '--seed', type=int, help="seed of the run (default: the config's)"
    )
    add_counts(
        parser,
        number=(IMAGES, 6, 1),
        epoch=('epoch of the run, from 1 on', 1, 1),
    )
    return parser.parse_args(argv)


def draw(args: argparse.Namespace) -> list:
    """Make the views, return the picture.

    Raises:
        OSError, ValueError, KeyError: The config or an image is not usable.
    """
    from mmengine.registry import DATASETS, init_default_scope
    from mmengine.runner import set_random_seed
    from rich.progress import track

    from mmscfs.visualization import draw_views, make_views, spread

    cfg = read_config(args.config, args.cfg_options)
    if not cfg.get('train_dataloader'):
        raise ValueError(
            f'{args.config} has no train_dataloader: name the config of '
            'a pre-training, e.g. configs/scfs_r50.py'
        )
    seed = args.seed
    if seed is None:
        seed = (cfg.get('randomness') or {}).get('seed') or 0
    set_random_seed(seed)  # for pipelines without MultiCrop
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    places = spread(len(dataset), args.number)
    samples = [
        make_views(dataset, [place], seed, args.epoch - 1)[0]
        for place in track(places, 'making the views')
    ]
    picture = draw_views(
        samples,
        f'Views of {Path(cfg.filename).stem}',
        f'as the network gets them in epoch {args.epoch} of seed {seed}; '
        'percent: share of the image',
    )
    return [picture]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    return write_pictures(parse_args(argv), draw)


if __name__ == '__main__':
    raise SystemExit(main())
