# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a small data set of handwritten digits over photographs, offline.

Everything comes from files that scikit-learn installs: 1797 handwritten
digits of 8x8 pixels and two photographs. A scene holds one large main digit,
the label of the image, and up to three small digits behind it. No digit and
no part of a photograph is used by both splits.
"""

from collections.abc import Sequence

from digit_scenes import load_sources
from scenes import make_scenes, scene_parser

EXAMPLES = """
examples:
  # data/digit-scenes, as configs/*/*_digits.py and the demo take them
  python tools/dataset_converters/make_digit_scenes.py
  # a few, to try something with
  python tools/dataset_converters/make_digit_scenes.py --train 300 --val 60 \\
      --out data/few-digits
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code, see ``make_folder``."""
    out = 'data/digit-scenes'
    parser = scene_parser(__doc__, EXAMPLES, out, train=3000, val=600)
    args = parser.parse_args(argv)
    return make_scenes(args, 'make_digit_scenes', load_sources)


if __name__ == '__main__':
    raise SystemExit(main())
