#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See what detectors find, before and after, beside what is annotated.

Draws some of a config's validation images: the annotations, then a column for
each checkpoint of the config's detector, e.g. trained from random weights and
from an SCFS teacher.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from picture_command import (
    IMAGES,
    add_counts,
    checkpoint,
    number,
    picture_parser,
    read_config,
    write_pictures,
)

EXAMPLES = """
examples:
  python tools/visualization/vis_detections.py \\
      configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py --checkpoints \\
      random=work_dirs/mask-rcnn_random/epoch_12.pth \\
      SCFS=work_dirs/mask-rcnn_scfs/epoch_12.pth
  # the demo's detectors (make demo)
  python tools/visualization/vis_detections.py \\
      configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py \\
      --number 6 --checkpoints \\
      random=work_dirs/demo/detectors/random/48-images_seed-0/iter_400.pth \\
      SCFS=work_dirs/demo/detectors/SCFS/48-images_seed-0/iter_400.pth
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = picture_parser(
        __doc__,
        EXAMPLES,
        'detections.png',
        "the detector's config",
        'val_dataloader.dataset.data_root=data/my',
    )
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        type=named,
        required=True,
        metavar='NAME=CHECKPOINT',
        help='what to draw in a column, and its title',
    )
    add_counts(parser, number=(IMAGES, 4, 1))
    parser.add_argument(
        '--min-score',
        type=number(lambda x: 0 <= x <= 1, 'from 0 to 1'),
        default=0.3,
        help='least score of what is drawn (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    pairs = args.checkpoints
    args.checkpoints = dict(pairs)
    if len({*args.checkpoints, 'annotated'}) <= len(pairs):
        parser.error('--checkpoints: every name once, and none "annotated"')
    return args


def named(text: str) -> tuple[str, str]:
    """Return a name and a checkpoint; a type of argparse."""
    name, _, path = text.partition('=')
    if not name or not path:
        raise argparse.ArgumentTypeError(
            f'{text!r}: give name=checkpoint, e.g. '
            'random=work_dirs/random/epoch_12.pth'
        )
    return name, checkpoint(path)


def draw(args: argparse.Namespace) -> list:
    """Detect, return the picture.

    Raises:
        OSError, ValueError: The config or a checkpoint is not usable.
    """
    from mmscfs.checkpoint import read_checkpoint
    from mmscfs.engine import prepare_config
    from mmscfs.visualization import draw_detections
    from mmscfs.visualization.detections import detect

    cfg = read_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmdet' or not cfg.get('val_dataloader'):
        raise ValueError(
            f'{args.config} is not a config of a detector with a '
            'val_dataloader: name one like those below configs/detection'
        )
    for path in args.checkpoints.values():
        read_checkpoint(path)  # before the work for another one
    prepare_config(cfg)
    samples, classes = detect(
        cfg, args.checkpoints, args.number, args.min_score
    )
    picture = draw_detections(
        samples,
        classes,
        'Detections in validation images',
        f'{Path(cfg.filename).stem}; class and score in percent, from '
        f'{100 * args.min_score:.0f} on',
    )
    return [picture]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    return write_pictures(parse_args(argv), draw)


if __name__ == '__main__':
    raise SystemExit(main())
