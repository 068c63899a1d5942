# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the makers of data sets share: lists of names, and whole folders."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
