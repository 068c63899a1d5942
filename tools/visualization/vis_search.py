#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See where a pre-trained network finds parts of an image in the whole.

Draws the SCFS paper's Fig. 3 for your images and checkpoints: the image is
cut into local views, by a 2x2 jigsaw or by boxes; each is averaged to a query
(Eq. 5) and compared with every position of the image's feature maps (Eq. 6).
Bright means alike. What belongs together lights up together once a network
knows it. Two checkpoints stand side by side.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from picture_command import (
    LARGEST,
    add_network_option,
    checkpoint,
    config,
    existing,
    picture_parser,
    write_pictures,
)

EXAMPLES = """
examples:
  # your own pre-training, on two images
  python tools/visualization/vis_search.py dog.jpg street.jpg \\
      --checkpoint work_dirs/scfs_r50/epoch_200.pth
  # the paper's comparison
  python tools/visualization/vis_search.py dog.jpg \\
      --checkpoint dino/epoch_200.pth scfs/epoch_200.pth --out fig3.png
  # the views of your choice, in px of the image; finer maps
  python tools/visualization/vis_search.py dog.jpg --size 448 \\
      --checkpoint scfs/epoch_200.pth --boxes 10,20,110,140 200,40,300,160
  # the authors' release, with views of another size than 224 and 96 px
  python tools/visualization/vis_search.py dog.jpg \\
      --checkpoint SCFS_checkpoint.pth --size 448

The weights tell which ResNet to build; another network needs --config. Without
search layers, as in DINO's checkpoints, the last three stages are searched.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = picture_parser(__doc__, EXAMPLES, 'search_maps.png')
    parser.add_argument(
        'images',
        nargs='+',
        type=partial(existing, what='image'),
        metavar='IMAGE',
        help='image file to search in',
    )
    parser.add_argument(
        '--checkpoint',
        nargs='+',
        type=checkpoint,
        required=True,
        metavar='CHECKPOINT',
        help='one pre-training checkpoint, or two to compare',
    )
    parser.add_argument(
        '--boxes',
        nargs='+',
        type=parse_box,
        metavar='X1,Y1,X2,Y2',
        help='local views, in px of each image: left, top, right, bottom '
        '(default: a 2x2 jigsaw)',
    )
    add_network_option(parser)
    parser.add_argument(
        '--config',
        type=config,
        help='config of the pre-training, a file or mmscfs::NAME, of a '
        'network that is not a ResNet',
    )
    parser.add_argument(
        '--size',
        type=int,
        metavar='PX',
        help='shorter side of the image for the network; local views scale '
        "with it (default: the config's global_size)",
    )
    args = parser.parse_args(argv)
    if len(args.checkpoint) > 2:
        parser.error(
            f'--checkpoint: {len(args.checkpoint)} are too many to stand side '
            'by side; name one or two'
        )
    if args.size is not None and not 32 <= args.size <= LARGEST:
        parser.error(f'--size {args.size}: must be 32 to {LARGEST}')
    inputs = {Path(path).resolve() for path in args.images + args.checkpoint}
    if args.out.resolve() in inputs:
        parser.error(f'--out {args.out}: it is an input; name another file')
    return args


def parse_box(text: str) -> tuple[float, ...]:
    """Return the four numbers of a box."""
    try:
        box = tuple(float(number) for number in text.split(','))
    except ValueError:
        box = ()
    if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a box: give left,top,right,bottom in px, e.g. '
            '10,20,110,140'
        )
    return box


def box_shares(boxes: Sequence | None, image, path: str):
    """Return the boxes as shares of the image's sides, (N, 4).

    Raises:
        ValueError: One leaves the image.
    """
    import numpy as np

    from mmscfs.visualization import jigsaw

    if boxes is None:
        return jigsaw()
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes:
        if min(x1, y1) < 0 or x2 > width or y2 > height:
            raise ValueError(
                f'--boxes {x1:g},{y1:g},{x2:g},{y2:g} leaves {path}, which '
                f'has {width} x {height} px'
            )
    return np.array(boxes) / [width, height, width, height]


def draw(args: argparse.Namespace) -> list:
    """Search, return the picture.

    Raises:
        OSError, ValueError: An image or a checkpoint is not usable.
    """
    from rich.progress import track
    from search_networks import load_network

    from mmscfs.checkpoint import naming
    from mmscfs.visualization import draw_search_maps, search_image

    networks = {}
    for path in args.checkpoint:
        with naming(path):
            networks[path] = load_network(
                path, args.config, args.network, args.size
            )
    samples = []
    for path in track(args.images, 'searching'):
        found = {}
        for source in args.checkpoint:
            name, search, sizes, load = networks[source]
            image = load(dict(img_path=path))['img']
            shares = box_shares(args.boxes, image, path)
            with naming(source):
                sample = search_image(search, image, shares, *sizes)
            # The same checkpoint twice is a pair, too.
            found[name + ' ' * (name in found)] = sample.found['']
        samples.append(sample._replace(found=found, name=Path(path).name))
    picture = draw_search_maps(
        samples,
        'Where each local view is found in the image',
        'each map compares a local view with every place; left, the mean of '
        'all views',
    )
    return [picture]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    return write_pictures(parse_args(argv), draw)


if __name__ == '__main__':
    raise SystemExit(main())
