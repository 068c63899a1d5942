# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The frame of the commands that draw pictures."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # else --help would wait for torch
    from mmengine.config import Config


def new_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of a command that teaches by examples."""
    return argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_options(
    parser: argparse.ArgumentParser, what: str, example: str
) -> None:
    """Add the config, and what overrides it."""
    from mmengine.config import DictAction

    parser.add_argument('config', help=f'{what}, a file or mmscfs::NAME')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help=f'override settings of the config, e.g. {example}',
    )


def add_network_option(parser: argparse.ArgumentParser) -> None:
    """Add the choice between the two networks of a checkpoint."""
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help='which network (default: the teacher where there is one)',
    )


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an option that counts."""

    def read(text: str) -> int:
        try:
            if (number := int(text)) >= least:
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(
            f'{text} must be a whole number >= {least}'
        )

    return read


def png(text: str) -> Path:
    """Return the file that is named by ``--out``.

    Raises:
        argparse.ArgumentTypeError: Its name is not that of a PNG.
    """
    path = Path(text)
    if path.suffix.lower() != '.png':
        raise argparse.ArgumentTypeError(
            f'{text!r} must end in .png, not to replace another file by '
            'mistake'
        )
    return path


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, out: str
) -> argparse.Namespace:
    """Add ``--out``, by default a file named ``out``, and parse."""
    parser.add_argument(
        '--out',
        type=png,
        default=Path(out),
        metavar='FILE',
        help='PNG to write (default: %(default)s)',
    )
    return parser.parse_args(argv)


def read_config(path: str, overrides: dict | None = None) -> 'Config':
    """Read a config, which may be named ``mmscfs::...``.

    Raises:
        ValueError: It cannot be read, or nothing reads one of its settings
            or of ``overrides``.
    """
    from mmscfs import settings
    from mmscfs.hub import PREFIX, find_config

    try:
        is_name = path.startswith(PREFIX)
        cfg, _ = settings.read_config(
            find_config(path) if is_name else path, overrides
        )
    except ValueError:
        raise
    except Exception as error:  # a config is code, which raises anything
        raise ValueError(
            f'config {path} cannot be read ({type(error).__name__}: {error}): '
            'correct what this names'
        ) from error

    from mmscfs.engine import apply_multi_crop  # slow

    apply_multi_crop(cfg)
    return cfg


@contextmanager
def naming(checkpoint: str) -> Iterator[None]:
    """Name the checkpoint in what is wrong with it.

    Raises:
        ValueError: The same as inside.
    """
    try:
        yield
    except ValueError as error:
        if checkpoint in str(error):
            raise
        raise ValueError(f'checkpoint {checkpoint}: {error}') from error


def write_pictures(
    args: argparse.Namespace,
    draw: Callable[[argparse.Namespace], Sequence[Callable[[Path], None]]],
    *others: Path,
) -> int:
    """Draw, and write what was drawn; say what went wrong.

    Args:
        args (Namespace): Has ``out``, the file to write.
        draw (Callable): Takes long, and returns for each file what writes it.
        *others (Path): More files to write.

    Returns:
        int: The command's exit code. 0: written, 1: writing failed, 2: wrong
        input.
    """
    from mmscfs.checkpoint import check_writable

    paths = [args.out, *others]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)
        writers = draw(args)
    except (OSError, ValueError, KeyError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for path, write in zip(paths, writers, strict=True):
        try:
            write(path)
        except OSError as error:
            print(f'error: cannot write {path}: {error}', file=sys.stderr)
            return 1
        # A name may have bytes that are not text.
        print(f'written: {str(path).encode(errors="replace").decode()}')
    return 0
