# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the commands that draw pictures have in common."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config

PREFIX = 'mmscfs::'


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


def add_out_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the file to write."""
    parser.add_argument(
        '--out',
        type=png,
        default=Path(default),
        metavar='FILE',
        help='PNG to write (default: %(default)s)',
    )


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


def check_config(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Make the config a file; exit with code 2 if there is none."""
    args.config = config_file(parser, args.config)


def config_file(parser: argparse.ArgumentParser, name: str) -> str:
    """Return the file of a config, which may be named ``mmscfs::...``.

    Exits with code 2 if there is none.
    """
    if name.startswith(PREFIX):
        # Here, for its packages take seconds to import.
        from mmscfs.hub import find_config

        try:
            return find_config(name)
        except FileNotFoundError as error:
            parser.error(str(error))
    if not Path(name).is_file():
        parser.error(
            f'no config file {name!r}; those of mmscfs have names such as '
            f'{PREFIX}scfs_r50.py'
        )
    return name


def read_config(args: argparse.Namespace) -> 'Config':
    """Read the config with its overrides.

    Raises:
        ValueError: It cannot be read.
    """
    cfg = read_config_file(args.config)
    if args.cfg_options:
        from mmscfs.engine import apply_multi_crop

        try:
            cfg.merge_from_dict(args.cfg_options)
            apply_multi_crop(cfg)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'--cfg-options do not fit {args.config} ({error}): name '
                'settings that it has'
            ) from error
    return cfg


def read_config_file(path: str) -> 'Config':
    """Read a config.

    Raises:
        ValueError: It cannot be read.
    """
    from mmengine.config import Config

    import mmscfs  # noqa: F401  (makes names as mmscfs::NAME known)

    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is code, which raises anything
        raise ValueError(
            f'config {path} cannot be read ({type(error).__name__}: {error}): '
            'correct what this names'
        ) from error


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
    paths: Sequence[Path],
    draw: Callable[[], Sequence[Callable[[Path], None]]],
) -> int:
    """Draw, and write what was drawn; say what went wrong.

    Args:
        paths (Sequence[Path]): Files to write; checked before drawing.
        draw (Callable): Takes long, and returns for each file what writes it.

    Returns:
        int: The command's exit code. 0: written, 1: writing failed, 2: wrong
        input.
    """
    from mmscfs.checkpoint import check_writable

    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)
        writers = draw()
    except (OSError, ValueError, KeyError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for path, write in zip(paths, writers, strict=True):
        try:
            write(path)
        except OSError as error:
            print(f'error: cannot write {path}: {error}', file=sys.stderr)
            return 1
        # A name may have bytes that are no text.
        print(f'written: {str(path).encode(errors="replace").decode()}')
    return 0
