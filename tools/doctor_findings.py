# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What doctor.py's checks hand over, and how they name commands."""

import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OK, NOTE, MISSING = 'ok', 'note', 'missing'
GIB = 2**30


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    value: str
    state: str = OK  # MISSING: needed, and not there
    remedy: str = ''  # the command or setting that fixes it


def python_command() -> str:
    """Return how to call this Python from here."""
    here = os.path.relpath(sys.executable)
    command = sys.executable if here.startswith('..') else here
    return shlex.quote(command)


def pip_command() -> str:
    """Return how to call this Python's pip, whoever made it."""
    return f'{python_command()} -m pip'


def pip_install(*words: str) -> str:
    """Return the command that installs into this Python."""
    quoted = ' '.join(shlex.quote(word) for word in words)
    return f'{pip_command()} install {quoted}'


def gib(number: float) -> str:
    """Say a number of bytes."""
    return f'{number / GIB:.1f} GiB'


def first_line(error: BaseException) -> str:
    """Say an error in one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
