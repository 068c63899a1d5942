# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the makers of data sets share: lists of names, and whole folders."""

import argparse
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import NotWritten, commanded
from command_end import writing as writing  # for the makers
from command_line import add_counts, make_parser

NUM_CLASSES = 1000  # of ImageNet
maker = commanded('OUT is unchanged')  # a decorator of a maker's main


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


def holds_anything(out: Path) -> bool:
    """Tell whether a folder to be made is there, and not empty."""
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


@contextmanager
def made_whole(
    out: Path, meta: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """Yield a folder that takes OUT's place once it is complete.

    Args:
        out (Path): The folder to make.
        meta (Mapping, optional): What its meta.json says. Defaults to None:
            it gets none.

    Raises:
        NotWritten: The folder cannot be made. OUT is as it was.
    """
    out = out.resolve()
    new = out.with_name(f'{out.name}.tmp-{os.getpid()}')
    old = out.with_name(f'{new.name}-old')
    for left in sorted(out.parent.glob(f'{glob.escape(out.name)}.tmp-*')):
        print(
            f'warning: {left} is of a call that was killed, or still runs: '
            'remove it if none does',
            file=sys.stderr,
        )
    try:
        new.mkdir(parents=True)
        yield new
        if meta is not None:
            text = json.dumps(meta, indent=2)
            (new / 'meta.json').write_text(f'{text}\n')
        if out.exists():
            out.rename(old)
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, BrokenExecutor) as error:
        raise NotWritten(
            f'cannot write {out}: {error}; free space there or get write '
            'permission, or name another folder'
        ) from error
    finally:
        if old.exists() and not out.exists():  # the last step failed
            old.rename(out)
        shutil.rmtree(new, ignore_errors=True)


def maker_parser(
    description: str, examples: str, out: str, **counts: tuple[Any, ...]
) -> argparse.ArgumentParser:
    """Return the parser of a maker whose files depend on a seed.

    Args:
        description (str): What it makes.
        examples (str): How it is called.
        out (str): Default folder to make.
        **counts (tuple): Its other options, see :func:`add_counts`.
    """
    parser = make_parser(description, examples)
    text = 'folder to make (default: %(default)s)'
    parser.add_argument('--out', type=Path, default=Path(out), help=text)
    counts['seed'] = ('seed of everything random', 0, 0, 2**32 - 1)
    add_counts(parser, **counts)
    text = 'replace OUT if its meta.json shows that this tool made it'
    parser.add_argument('--overwrite', action='store_true', help=text)
    return parser


def is_made(args: argparse.Namespace, meta: Mapping[str, Any]) -> bool:
    """Tell, and say, whether OUT already holds what ``meta`` describes.

    Args:
        args (Namespace): What :func:`maker_parser` parsed.
        meta (Mapping): What the files depend on, for meta.json.

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
    if args.overwrite:
        return False
    for key, value in meta.items():
        if found.get(key) != value:
            raise ValueError(
                f'--out {args.out} was made with {key} {found.get(key)}, not '
                f'{value}: choose another --out or pass --overwrite'
            )
    print(f'{args.out} is already made, nothing to do')
    return True
