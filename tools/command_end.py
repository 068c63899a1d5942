# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How the commands end: one line for an error of the user, an exit code."""

import errno
import functools
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Functions of loops, in which a run has begun.
STEPS = {'run_epoch', 'run_iter', '__next__'}
# What a disk without room says.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENDS = (signal.SIGTERM, signal.SIGHUP)
Main = Callable[..., int]


class NotWritten(OSError):
    """A result cannot be written: exit code 1 of :func:`commanded`."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that cannot be written.

    Raises:
        NotWritten: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(f'cannot write {path}: {error}') from error


def commanded(stopped: str) -> Callable[[Main], Main]:
    """Let a command end well: a decorator of its ``main``.

    A user's errors become a line and exit code 2, or 1 if a result cannot be
    written or a disk is full. Ctrl-C, SIGTERM and a hang-up (not under nohup)
    end what is under way, with exit code 130.

    Args:
        stopped (str): What to say then.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(*args: Any) -> int:
            before = {number: signal.getsignal(number) for number in ENDS}
            for number, handler in before.items():
                if handler is signal.SIG_DFL:
                    signal.signal(number, signal.default_int_handler)
            try:
                return main(*args)
            except (ValueError, OSError, KeyError) as error:
                print(f'error: {to_line(error)}', file=sys.stderr)
                is_disk = isinstance(error, NotWritten) or is_full(error)
                return 1 if is_disk else 2
            except KeyboardInterrupt:
                print(f'stopped: {stopped}', file=sys.stderr)
                return 130
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        return run

    return decorate


def is_full(error: Exception) -> bool:
    """Tell whether a disk was full."""
    return isinstance(error, OSError) and error.errno in FULL


def to_line(error: Exception) -> str:
    """Return the text of a user's error.

    Raises:
        KeyError: It is one of the code: a type that no registry has is a
            user's.
    """
    text = str(error.args[0] if len(error.args) == 1 else error)
    if isinstance(error, KeyError) and 'registry' not in text:
        raise error
    return text


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Exit with one line for an error before the first step of a run.

    Later ones keep their traceback, but for an image that cannot be read, and
    a full disk.
    """
    try:
        yield
    except (ValueError, OSError, SyntaxError, KeyError) as error:
        frames = {f.name for f in traceback.extract_tb(error.__traceback__)}
        text = to_line(error)
        # A run has begun, and all is imported.
        if frames & STEPS and not is_full(error):
            from mmscfs.datasets.transforms.loading import UnreadableImageError

            if not isinstance(error, UnreadableImageError):
                raise
            # Of a worker, it comes with the worker's traceback before it.
            text = text.split('UnreadableImageError: ')[-1].strip()
        sys.exit(f'error: {text}')
