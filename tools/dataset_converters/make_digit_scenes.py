# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make a small data set of handwritten digits over photographs, offline.

Everything comes from files that scikit-learn installs: 1797 handwritten
digits of 8x8 pixels and two photographs. A scene holds one large main digit,
the label of the image, and up to three small digits behind it.

Written below OUT, all three views sharing the same JPEG files:
  train/<digit>/00000.jpg, val/<digit>/00000.jpg   one folder per class
  annotations/instances_{train,val}.json           COCO boxes and polygons
  VOC2007/{JPEGImages,Annotations,ImageSets/Main}  Pascal VOC: trainval, test
  meta.json                                        the settings, written last

No digit and no part of a photograph is used by both splits. The files depend
on --train, --val, --size and --seed, not on --workers. OUT appears only once
it is complete.
"""

from collections.abc import Sequence
from pathlib import Path

from digit_scenes import load_sources
from scenes import make_scenes, scene_parser

EXAMPLES = """
examples:
  # data/digit-scenes, as the demo takes it
  python tools/dataset_converters/make_digit_scenes.py
  # a few, to try something with
  python tools/dataset_converters/make_digit_scenes.py --train 300 --val 60 \\
      --out data/few-digits
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code, see ``make_scenes``."""
    out = Path('data/digit-scenes')
    parser = scene_parser(__doc__, EXAMPLES, out, train=3000, val=600)
    args = parser.parse_args(argv)
    return make_scenes(args, 'make_digit_scenes', load_sources)


if __name__ == '__main__':
    raise SystemExit(main())
