# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = '.{name}.tmp-{pid}'
# What a network file system may answer to the flush of a folder.
NO_FOLDER_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)


def check_writable(path: str | Path) -> None:
    """Check, before long work, that its result can be written.

    Raises:
        OSError: The folder is missing or cannot be written to, or ``path``
            is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        problem, remedy = 'the folder does not exist', 'make it (mkdir -p)'
    elif path.is_dir():
        problem, remedy = f'{path.name} is a folder', 'remove it'
    else:
        # Trying is the only test that holds on network and read-only disks.
        trial = path.with_name(f'.{path.name}.try-{os.getpid()}')
        try:
            trial.touch()
            trial.unlink()
            return
        except OSError as error:
            problem = error.strerror or str(error)
            remedy = (
                'get write permission there, or name another folder. A result '
                'beside a checkpoint is written where a link to it (ln -s) '
                'lies'
            )
    raise OSError(
        f'the result cannot be written to {str(path.parent)!r} as '
        f'{path.name}: {problem}; {remedy}'
    )


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is whole, or as it was before.

    A full disk, a kill or a power cut neither leaves a torn file nor loses
    the one that was there.

    Raises:
        OSError: It cannot be written. Names the file, its size, the free
            space and the reason.
    """
    path = Path(path)
    new = path.with_name(UNFINISHED.format(name=path.name, pid=os.getpid()))
    with room_named(path, len(content)):
        try:
            with open(new, 'wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
        flush_folder(path.parent)


@contextmanager
def room_named(path: Path, size: int) -> Iterator[None]:
    """Say of what cannot be written how large it is, and what room there is.

    Args:
        path (Path): The file, which the system's error may lack.
        size (int): Its bytes.

    Raises:
        OSError: In place of one within, with the same number.
    """
    try:
        yield
    except OSError as error:
        try:
            free = f'{shutil.disk_usage(path.parent).free:,}'
        except OSError:  # the folder is gone
            free = 'no'
        raise OSError(
            error.errno,
            f'{error.strerror or error}: {size:,} bytes were not written, '
            f'{free} are free. Free space there, or name another folder',
            str(path),
        ) from error


def flush_folder(folder: Path) -> None:
    """Flush a folder, so that its new names survive a power cut.

    Nothing where the file system cannot do it.

    Raises:
        OSError: The flush failed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Remove what killed processes were writing; return the files.

    Folders of such names stay: another tool may still be filling them. Call
    it only where no other process writes to the folder.

    Raises:
        OSError: One cannot be removed.
    """
    found = [
        path
        for path in sorted(
            Path(folder).glob(UNFINISHED.format(name='*', pid='*'))
        )
        if path.is_symlink() or not path.is_dir()
    ]
    for path in found:
        path.unlink(missing_ok=True)
    return found
