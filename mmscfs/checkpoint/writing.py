# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is whole, or as it was before.

    A full disk or a kill leaves neither a torn file nor loses the one that
    was there.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(path)
    new = path.with_name(f'.{path.name}.tmp-{os.getpid()}')
    try:
        with open(new, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
