# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the makers of data sets share: lists of names, and whole folders."""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NUM_CLASSES = 1000  # of ImageNet
SYNSET = re.compile(r'n\d{8}')  # the name of one


def read_names(path: Path, pattern: re.Pattern, what: str) -> list[str]:
    """Read a list of names, one a line; # starts a comment.

    Raises:
        ValueError: A line is something else, or a name is listed twice.
        OSError: The list cannot be read.
    """
    names: dict[str, None] = {}  # in their order
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        name = line.partition('#')[0].strip()
        if not name:
            continue
        if not pattern.fullmatch(name):
            raise ValueError(
                f'{path}, line {number}: {name[:80]!r} is not {what}'
            )
        if name in names:
            raise ValueError(f'{path}, line {number}: {name} is listed twice')
        names[name] = None
    return list(names)


def class_folders(split: Path) -> list[str]:
    """Return the names of ImageNet's class folders, sorted.

    Raises:
        ValueError: The split does not exist.
    """
    if not split.is_dir():
        raise ValueError(f'no folder {str(split)!r}: correct --source')
    return sorted(
        entry.name
        for entry in os.scandir(split)
        if SYNSET.fullmatch(entry.name) and entry.is_dir()
    )


def holds_anything(out: Path) -> bool:
    """Tell whether a folder to be made is there, and not empty."""
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """Yield a folder that takes OUT's place once it is complete.

    On an error, OUT is as it was.
    """
    out = out.resolve()
    new = out.with_name(f'{out.name}.tmp-{os.getpid()}')
    old = out.with_name(f'{new.name}-old')
    try:
        new.mkdir(parents=True)
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def number_between(low: int, high: int) -> Callable[[str], int]:
    """Return a type of argparse: a whole number from low to high."""

    def number(text: str) -> int:
        with suppress(ValueError):
            if low <= int(text) <= high:
                return int(text)
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a whole number from {low} to {high}'
        )

    return number


def maker_parser(
    description: str,
    examples: str,
    out: str,
    **numbers: tuple[int | None, int, int, str],
) -> argparse.ArgumentParser:
    """Return the parser of a maker whose files depend on a seed.

    Args:
        description (str): What it makes.
        examples (str): How it is called.
        out (str): Default folder to make.
        **numbers (tuple): Its other options: default, least and largest
            number, and help.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=examples,
    )
    text = 'folder to make (default: %(default)s)'
    parser.add_argument('--out', type=Path, default=Path(out), help=text)
    numbers['seed'] = (0, 0, 2**32 - 1, 'seed of everything random')
    for name, (default, low, high, text) in numbers.items():
        parser.add_argument(
            f'--{name}',
            type=number_between(low, high),
            default=default,
            metavar='N',
            help=f'{text}, {low} to {high} (default: %(default)s)',
        )
    text = 'replace OUT if its meta.json shows that this tool made it'
    parser.add_argument('--overwrite', action='store_true', help=text)
    return parser


def is_made(
    args: argparse.Namespace,
    meta: Mapping[str, Any],
    files: Mapping[str, str],
) -> bool:
    """Tell whether OUT already holds what ``meta`` describes.

    Raises:
        ValueError: It holds something else that must stay.
    """
    if not holds_anything(args.out):
        return False
    try:
        found = dict(json.loads((args.out / 'meta.json').read_text()))
    except (OSError, TypeError, ValueError):
        found = {}
    if found.get('tool') != meta['tool']:
        raise ValueError(
            f'--out {args.out} was not made by this tool: choose another --out'
        )
    for name, pattern in files.items():  # in case some were removed
        found[name] = sum(1 for _ in args.out.glob(pattern))
    for key, value in meta.items():
        if found.get(key) != value and not args.overwrite:
            raise ValueError(
                f'--out {args.out} was made with {key} {found.get(key)}, not '
                f'{value}: choose another --out or pass --overwrite'
            )
    return not args.overwrite


def make_folder(
    args: argparse.Namespace,
    meta: Mapping[str, Any],
    files: Mapping[str, str],
    prepare: Callable[[], Callable[[Path], None]],
) -> int:
    """Make the folder of a command line, return the command's exit code.

    0: made or already there, 1: writing failed, 2: OUT holds other things, or
    the material cannot be used, 130: interrupted. OUT is as it was unless the
    code is 0.

    Args:
        args (Namespace): What :func:`maker_parser` parsed.
        meta (Mapping): What the files depend on, for meta.json.
        files (Mapping): By their number's name in ``meta``, a pattern of
            files that have to be there.
        prepare (Callable): Loads the material, or raises ValueError or
            OSError. Returns what writes into an empty folder, or raises
            OSError.
    """
    try:
        if is_made(args, meta, files):
            print(f'{args.out} is already made, nothing to do')
            return 0
        write = prepare()
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        with made_whole(args.out) as new:
            write(new)
            (new / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    except (OSError, BrokenExecutor) as error:
        print(f'error: cannot make {args.out}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.out} is unchanged', file=sys.stderr)
        return 130
    return 0
