# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Paths on the command line: types of argparse for all commands.

They look at the disk while the words are read, and import nothing that takes
time: a wrong path is refused at once, and named with what lies there instead.
"""

import argparse
import difflib
import os
import os.path as osp
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

PREFIX = 'mmscfs::'
# Beside the tools, in a checkout and where they are installed.
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
LOOKED_AT = 2_000  # entries of a folder
SHOWN = 3  # of those that are named


def file(text: str) -> Path:
    """Return a file that exists."""
    return Path(existing(text, 'file'))


def folder(text: str) -> Path:
    """Return a folder that exists."""
    return Path(existing(text, 'folder'))


def run_or_file(text: str) -> Path:
    """Return a folder or a file that exists."""
    return Path(text) if osp.isfile(text) else folder(text)


def checkpoint(text: str) -> str:
    """Return the path of a checkpoint that exists, or a name of weights.

    ``mmscfs::...`` stays a name: all that reads a checkpoint knows it.
    """
    if not text.startswith(PREFIX):
        return existing(text, 'checkpoint')
    package = find_spec('mmscfs')  # it does not import it
    folders = (package and package.submodule_search_locations) or ()
    names = [
        f'{PREFIX}{path.stem}'
        for folder in folders
        for path in sorted(Path(folder, 'weights').glob('*.safetensors'))
    ]
    if text.removesuffix('.safetensors') not in names:
        raise argparse.ArgumentTypeError(
            f'no weights {text!r}: those of mmscfs are {", ".join(names)}'
        )
    return text


def config(text: str) -> str:
    """Return the file of a config, also of one named ``mmscfs::...``."""
    path = text
    if text.startswith(PREFIX):
        name = text.removeprefix(PREFIX).removesuffix('.py')
        path = f'{CONFIGS}/{name}.py'
    if not osp.isfile(path):
        raise argparse.ArgumentTypeError(
            f'no config file {text!r}: {what_is_there(path)}; those of mmscfs '
            f'are below {CONFIGS}, and have names such as {PREFIX}scfs_r50.py'
        )
    return path


def existing(text: str, what: str) -> str:
    """Return a path that exists.

    Args:
        text (str): The path.
        what (str): "folder", or what the file should be, such as
            "checkpoint".

    Raises:
        argparse.ArgumentTypeError: It does not. Says what is there instead.
    """
    is_folder = what == 'folder'
    if osp.isdir(text) if is_folder else osp.isfile(text):
        return text
    raise argparse.ArgumentTypeError(
        f'no {what} {text!r}: {what_is_there(text, is_folder)}'
    )


def what_is_there(text: str, is_folder: bool = False) -> str:
    """Say what lies where a path does not exist: names like it, or new ones.

    Args:
        text (str): The path of a file, or of a folder.
        is_folder (bool): Which of them. Defaults to False.
    """
    path = Path(text)
    if not text or path.is_dir() or path.is_file():
        return f'name a {"folder" if is_folder else "file"}'
    missing = ''
    while not path.parent.is_dir():
        path, is_folder = path.parent, True
        missing = f'the folder {str(path)!r} does not exist; '
    parent, ending = path.parent, path.suffix
    try:
        with os.scandir(parent) as entries:
            found = [
                entry
                for entry in islice(entries, LOOKED_AT)
                if not entry.name.startswith('.')
                and entry.is_dir() == is_folder
                and (is_folder or Path(entry.name).suffix.endswith(ending))
            ]
        found.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    except OSError as error:
        return f'{missing}{error}'
    names = [entry.name for entry in found]
    shown = difflib.get_close_matches(path.name, names, SHOWN)
    shown = shown or names[:SHOWN]
    kind = 'folders' if is_folder else f'{ending or "files"}'
    if not shown:
        return f'{missing}{str(parent)!r} has no {kind}'
    more = len(names) - len(shown)
    return (
        f'{missing}{str(parent)!r} has {", ".join(shown)}'
        + f' and {more} more' * (more > 0)
    )
