#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Find objects in new images with a trained detector.

Takes images and folders of images, at any depth. Writes a picture of each,
with boxes, masks, class names and scores, and results.json, a list with

  {"file": "my/a.jpg", "class": "bag", "score": 0.97,
   "bbox": [left, top, width, height], "segmentation": {...}}

for each object. Boxes are in px of the image; "segmentation", of detectors
with masks, has COCO's run lengths. Images are read as the config's test images
are. A file that cannot be read is named and skipped.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from command_end import errors_in_one_line
from command_line import add_cfg_options, make_parser, read_config
from command_paths import checkpoint, config, run_or_file

if TYPE_CHECKING:
    from mmengine.config import Config

EXAMPLES = """
examples:
  # the detector of tools/recipe.py, on a folder of new images
  python tools/detect.py my_det.py work_dirs/my_det/iter_1000.pth my/new \\
      --out work_dirs/found
  # only what is nearly certain, in two images
  python tools/detect.py my_det.py work_dirs/my_det/iter_1000.pth a.jpg \\
      b.tif --out work_dirs/found --min-score 0.9
  # images of 16 bits, whose values are from 0 to 4095
  python tools/detect.py my_det.py work_dirs/my_det/iter_1000.pth my/deep \\
      --out work_dirs/found --cfg-options \\
      test_dataloader.dataset.pipeline.0.value_range="(0,4095)"

exit code: 0 written, 1 no image could be read or wrong input, 2 wrong call,
130 stopped by Ctrl-C: what was found until then is written
"""
SIDES = 300, 1200  # px of a picture, the least and the most


def parse_args() -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'config',
        type=config,
        help="the detector's config, a file or mmscfs::NAME",
    )
    parser.add_argument(
        'checkpoint', type=checkpoint, help='its checkpoint, by train.py'
    )
    parser.add_argument(
        'images',
        nargs='+',
        type=run_or_file,
        metavar='IMAGES',
        help='image files, and folders: all images and .npy files in them '
        'are taken, at any depth',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='FOLDER',
        help='folder for results.json and the folder pictures; those of an '
        'earlier call are replaced',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.3,
        metavar='SHARE',
        help='least score, from 0 to 1, of what is kept (default: '
        '%(default)s)',
    )
    add_cfg_options(parser, 'model.test_cfg.rcnn.max_per_img=20')
    args = parser.parse_args()
    if not 0 <= args.min_score <= 1:
        parser.error(f'--min-score {args.min_score} must be from 0 to 1')
    args.images = [*map(str, args.images)]
    return args


def list_images(args: argparse.Namespace) -> dict[str, Path]:
    """Return the picture to write of each image.

    Raises:
        FileNotFoundError: A folder has no image.
        ValueError: The pictures would lie among the images.
    """
    from mmscfs.datasets import image_files

    endings, found = (*image_files.EXTENSIONS, '.npy'), {}
    for source in args.images:
        if not os.path.isdir(source):
            found.setdefault(source, os.path.basename(source))
            continue
        below = os.path.relpath(args.out.resolve(), Path(source).resolve())
        parts = Path(below).parts
        if '..' not in parts and not any(map(image_files.why_ignored, parts)):
            raise ValueError(
                f'--out {args.out} lies in {source!r}, where the next call '
                'would take its pictures for images: name a folder elsewhere'
            )
        names, ignored = image_files.find_images(source, endings)
        text = (
            f'{len(names) or "no"} images in {source!r}{ignored}. To read a '
            'file of another ending, name the file itself'
        )
        if not names:
            raise FileNotFoundError(text)
        if ignored:
            print(f'warning: {text}', file=sys.stderr)
        found |= {os.path.join(source, name): name for name in names}
    pictures: dict[Path, str] = {}
    for path, name in found.items():
        picture = Path(args.out, 'pictures', name).with_suffix('.png')
        while picture in pictures:  # of another folder, or another ending
            picture = picture.with_stem(f'{picture.stem}_')
        pictures[picture] = path
    return {path: picture for picture, path in pictures.items()}


def detect(cfg: 'Config', args: argparse.Namespace) -> None:
    """Load the detector, look at the images, write what is found.

    Raises:
        OSError, ValueError: Checkpoint or images are not usable, or nothing
            can be written.
    """
    from rich.progress import track  # takes seconds to import, as others

    from mmscfs.checkpoint import check_writable, write_atomically
    from mmscfs.datasets.transforms.loading import UnreadableImageError
    from mmscfs.engine import prepare_config
    from mmscfs.visualization import draw_detections, write_png
    from mmscfs.visualization.detections import (
        find_objects,
        load_detector,
        to_results,
    )

    images, results, done, skipped = list_images(args), [], 0, 0
    file = args.out / 'results.json'
    args.out.mkdir(parents=True, exist_ok=True)
    check_writable(file)
    prepare_config(cfg)
    detector = load_detector(cfg, args.checkpoint)
    subtitle = f'class and score in percent, from {100 * args.min_score:g} on'
    try:
        for path, picture in track([*images.items()], 'detecting'):
            try:
                image, found = find_objects(detector, path, args.min_score)
            except UnreadableImageError as error:
                print(f'skipped: {error}', file=sys.stderr)
                skipped += 1
                continue
            results += [
                dict(file=path, **result)
                for result in to_results(found, detector.classes)
            ]
            side = min(max(*image.shape[:2], SIDES[0]), SIDES[1])
            sample = image, {f'found: {len(found.labels)}': found}
            drawn = draw_detections(
                [sample], detector.classes, Path(path).name, subtitle, side
            )
            picture.parent.mkdir(parents=True, exist_ok=True)
            write_png(drawn, picture)
            done += 1
    finally:  # also after Ctrl-C
        lines = ',\n'.join(map(json.dumps, results))
        write_atomically(file, f'[\n{lines}\n]\n'.encode())
        if done:
            print(
                f'{done} images, {skipped} skipped: {len(results)} objects\n'
                f'written: {file} and {args.out / "pictures"}'
            )
    if not done:
        raise ValueError(
            f'none of {skipped} images could be read: see above why'
        )


def main() -> None:
    """Detect."""
    args = parse_args()
    with errors_in_one_line():
        cfg = read_config(args.config, args.cfg_options)
        loaders = [cfg.get(f'{split}_dataloader') for split in ('test', 'val')]
        if cfg.get('default_scope') != 'mmdet' or not any(loaders):
            raise ValueError(
                f'{args.config} is not a config of a detector with a '
                'test_dataloader: name one like those below configs/detection'
            )
        detect(cfg, args)


if __name__ == '__main__':
    main()
