# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Files of a run: whole or not there, and a full disk does not end it."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar

from mmengine.config import Config
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend
from mmengine.visualization.vis_backend import force_init_env
from mmpretrain.registry import VISBACKENDS

from mmscfs.checkpoint import write_atomically

ATOMIC = 'mmscfs_atomic'
LAST = 'last_checkpoint'  # names the newest, as mmengine has it
INTERRUPTED = 'interrupted.pth'  # saved after a signal
NOT_WRITABLE = '--work-dir {!r} cannot be written ({}): name another folder'
LOCK = '.lock'  # held by the training that writes to the folder
LOCKS: dict[Path, IO[str]] = {}  # of this process, by folder


class AtomicBackend(LocalBackend):
    """mmengine's local files, which are whole or as they were before.

    mmengine's checkpoint hook removes an outdated file before it writes the
    new one. Here it stays until the new one is in place: ``remove`` only
    notes it in ``outdated``.
    """

    outdated: ClassVar[set[Path]] = set()

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, and its folder where it is missing.

        Raises:
            OSError: See :func:`write_atomically`.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, obj)
        self.outdated.discard(path.resolve())

    def remove(self, filepath: str | Path) -> None:
        """Note that a file is outdated."""
        self.outdated.add(Path(filepath).resolve())


register_backend(ATOMIC, AtomicBackend, force=True)


def is_local(folder: str) -> bool:
    """Whether mmengine takes a folder's name for one on this machine."""
    return isinstance(get_file_backend(folder), LocalBackend)


def lock_work_dir(folder: str) -> None:
    """Keep a second training out of a work directory, until this one ends.

    The system frees the lock with the process, however that ends.

    Raises:
        ValueError: Another process that still runs has it, or the folder
            cannot be written.
    """
    path = Path(folder, LOCK).resolve()
    if not is_local(folder) or path in LOCKS:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, 'a+')  # noqa: SIM115 (open as long as it is locked)
    except OSError as error:
        raise ValueError(
            NOT_WRITABLE.format(folder, error.strerror)
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise ValueError(
            f'--work-dir {folder!r} is in use by a run that has not ended '
            f'({file.read() or "unknown"}): wait for it, or name another '
            'folder'
        ) from error
    except OSError as error:
        print_log(
            f'{folder}: this file system knows no locks ({error.strerror}), '
            'so do not start a second run there.',
            logger='current',
            level=logging.WARNING,
        )
    try:
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
    except OSError as error:
        raise ValueError(
            NOT_WRITABLE.format(folder, error.strerror)
        ) from error
    LOCKS[path] = file


def unlock_work_dir(folder: str) -> None:
    """Let others train in a folder that this process had locked."""
    if file := LOCKS.pop(Path(folder, LOCK).resolve(), None):
        file.close()


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's files of scalars and pictures; a full disk costs only those.

    A line or a picture is then missing, with a warning. The run continues,
    because its state is in memory alone (see ``SafeCheckpointHook``).
    """

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Write the config whole, before the run begins.

        Raises:
            OSError: It cannot be written.
        """
        write_atomically(self._config_save_file, config.dump().encode())

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        """Write a picture, as mmengine does."""
        with warning_if_full('A picture'):
            super().add_image(*args, **kwargs)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Write a line of one scalar, as mmengine does."""
        with warning_if_full('A scalar'):
            super().add_scalar(*args, **kwargs)

    def add_scalars(self, *args: Any, **kwargs: Any) -> None:
        """Write a line of scalars, as mmengine does."""
        with warning_if_full('A line of scalars'):
            super().add_scalars(*args, **kwargs)


@contextmanager
def warning_if_full(what: str) -> Iterator[None]:
    """Warn that something was not written, instead of ending the run."""
    try:
        yield
    except OSError as error:
        print_log(
            f'{what} was not written: {error}.',
            logger='current',
            level=logging.WARNING,
        )
