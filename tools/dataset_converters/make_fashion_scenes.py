# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a data set of garments over photographs, from files of yours.

Takes the four files of Fashion-MNIST (60,000 training and 10,000 test pictures
of 28x28 pixels, e.g. train-images-idx3-ubyte.gz) and a folder of photographs,
such as desktop backgrounds. Nothing is downloaded. A scene holds one large
main garment, the label of the image, and up to three small ones behind it.
No garment and no photograph is used by both splits: val has the test
pictures, and the last quarter of the photographs by name.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fashion_scenes import load_sources
from scenes import make_scenes, scene_parser

EXAMPLES = """
examples:
  python tools/dataset_converters/make_fashion_scenes.py \\
      --fashion data/fashion-mnist --photos /usr/share/backgrounds
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code, see ``make_folder``."""
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
