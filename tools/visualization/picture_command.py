# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The frame of the commands that draw pictures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded, writing
from command_line import (
    add_cfg_options,
    add_counts,
    add_network_option,
    add_pretrained_options,
    make_parser,
    number,
    read_config,
)
from command_paths import checkpoint, config, existing

__all__ = [  # for the commands
    'add_counts',
    'add_network_option',
    'add_pretrained_options',
    'checkpoint',
    'config',
    'existing',
    'number',
    'read_config',
]
IMAGES = 'images at most, evenly spread over the data set'
LARGEST = 2048  # px: the search maps of more take all memory


def picture_parser(
    description: str,
    examples: str,
    out: str,
    what: str = '',
    example: str = '',
) -> argparse.ArgumentParser:
    """Return the parser of a command that draws.

    Args:
        description (str): What the command does.
        examples (str): How it is called.
        out (str): The file in work_dirs that it writes if ``--out`` names
            none.
        what (str): What config it takes. Defaults to none.
        example (str): A setting of it.
    """
    parser = make_parser(description, examples)
    if what:
        parser.add_argument(
            'config', type=config, help=f'{what}, a file or mmscfs::NAME'
        )
        add_cfg_options(parser, example)
    parser.add_argument(
        '--out',
        type=png,
        default=Path('work_dirs', out),  # which no scan takes for images
        metavar='FILE',
        help='PNG to write (default: %(default)s)',
    )
    return parser


def png(text: str) -> Path:
    """Return the file that is named by ``--out``; a type of argparse."""
    if not text.lower().endswith('.png'):
        raise argparse.ArgumentTypeError(
            f'{text!r} must end in .png, not to replace another file by '
            'mistake'
        )
    return Path(text)


@commanded('nothing is written')
def write_pictures(
    args: argparse.Namespace,
    draw: Callable[[argparse.Namespace], Sequence[Any]],
    *others: Path,
) -> int:
    """Draw, and write what was drawn; say what went wrong.

    Args:
        args (Namespace): Has ``out``, the file to write.
        draw (Callable): Takes long, and returns the picture, and what writes
            each of the others.
        *others (Path): More files to write.

    Returns:
        int: The command's exit code. 0: written, 1: writing failed, 2: wrong
        input.
    """
    from mmscfs.checkpoint import check_writable
    from mmscfs.visualization import write_png

    paths = [args.out, *others]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    picture, *writers = draw(args)
    writers.insert(0, partial(write_png, picture))
    for path, write in zip(paths, writers, strict=True):
        with writing(path):
            write(path)
        # A name may have bytes that are not text.
        print(f'written: {str(path).encode(errors="replace").decode()}')
    return 0
