# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Images in a few large tar files, for file systems that hate small ones.

A folder of shards has plain, uncompressed tar files, ``shard-00000.tar`` and
so on, and ``shards.tsv``, which says where in them each image is. Nothing is
unpacked: an image is read by its place.

An image's path is ``tar://FOLDER/shard-00000.tar#NAME@OFFSET+SIZE``, which is
all that reading it takes: no process keeps an index. Importing this module
makes mmengine read such paths, so any loader of OpenMMLab does.
"""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.fileio import BaseStorageBackend, register_backend

INDEX = 'shards.tsv'
TITLE = re.compile(r'# (\d+) images: shard, offset, size, name')
LINE = re.compile(r'(shard-\d{5,}\.tar)\t(\d+)\t(\d+)\t(.+)')
URI = re.compile(r'tar://(.+?\.tar)#(.+)@(\d+)\+(\d+)', re.DOTALL)
TEXT: dict[str, Any] = dict(encoding='utf-8', errors='surrogateescape')
BLOCK = tarfile.BLOCKSIZE
END = tarfile.RECORDSIZE + BLOCK  # the most that closing an archive adds
LONG_NAME = tarfile.LENGTH_NAME  # bytes; a longer one has its own blocks
OPEN_FILES = 128  # of one process
REMEDY = 'copy the shards again, or pack them again'


class ShardError(ValueError):
    """A shard or an index that is damaged or does not fit the other."""


def is_sharded(folder: str | Path) -> bool:
    """Tell whether a folder holds shards."""
    return os.path.isfile(os.path.join(folder, INDEX))


def read_index(folder: str | Path) -> dict[str, str]:
    """Return {name: path} of the images in a folder of shards, in order.

    Raises:
        ShardError: The index is damaged, or a shard is missing or cut off.
    """
    index = os.path.join(folder, INDEX)
    with open(index, newline='\n', **TEXT) as file:
        title, *lines = file.read().split('\n')
    if lines and not lines[-1]:
        lines.pop()
    count = TITLE.fullmatch(title)
    if not count or int(count[1]) != len(lines):
        raise ShardError(
            f'{index} begins with {title[:60]!r} and has {len(lines)} lines '
            f'after it: it is cut off, or no index of shards; {REMEDY}'
        )
    paths: dict[str, str] = {}
    ends: dict[str, int] = {}
    for number, line in enumerate(lines, 2):
        match = LINE.fullmatch(line)
        if not match:
            raise ShardError(
                f'{index}, line {number}: {line[:80]!r} is not a shard, '
                f'offset, size and name; {REMEDY}'
            )
        shard, offset, size, name = match.groups()
        paths[name] = f'tar://{folder}/{shard}#{name}@{offset}+{size}'
        ends[shard] = max(ends.get(shard, 0), int(offset) + int(size))
    for shard, end in ends.items():
        path = Path(folder, shard)
        length = path.stat().st_size if path.is_file() else None
        if length is None or length < end:
            state = 'missing' if length is None else f'cut off at {length} B'
            raise ShardError(
                f'{path} is {state}, but {index} has images in it up to '
                f'{end} B; {REMEDY}'
            )
    return paths


@lru_cache(OPEN_FILES)
def open_shard(path: str) -> io.FileIO:
    """Open a shard for reads by place, once for a process."""
    return open(path, 'rb', buffering=0)


@register_backend('tar', prefixes='tar')
class TarBackend(BaseStorageBackend):
    """Reads an image in a shard by its ``tar://`` path.

    Reads go by place and move no file position, so that worker processes may
    share files that were open when they were forked.
    """

    def get(self, filepath: str) -> bytes:
        """Return the image's bytes.

        Raises:
            ShardError: The path does not fit the shard: other things are at
                its place.
            OSError: The shard cannot be read.
        """
        match = URI.fullmatch(str(filepath))
        if not match:
            raise ShardError(
                f'{filepath!r} is not a path tar://SHARD.tar#NAME@OFFSET+SIZE'
            )
        shard, name, offset, size = match.groups()
        offset, size = int(offset), int(size)
        # With the header before it, which tells whether this is the image.
        read = os.pread(
            open_shard(shard).fileno(), BLOCK + size, offset - BLOCK
        )
        try:
            header = tarfile.TarInfo.frombuf(read[:BLOCK], *TEXT.values())
        except tarfile.HeaderError as error:
            raise ShardError(
                f'no image at {offset} B of {shard}: {error}; {REMEDY}'
            ) from error
        wanted, found = (n.encode(**TEXT) for n in (name, header.name))
        if header.size != size or wanted[:LONG_NAME] != found[:LONG_NAME]:
            raise ShardError(
                f'{header.name} of {header.size} B at {offset} B of {shard} '
                f'in place of {name} of {size} B; {REMEDY}'
            )
        if len(read) < BLOCK + size:
            raise ShardError(f'{shard} is cut off in {name}; {REMEDY}')
        return read[BLOCK:]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return a file of text."""
        return self.get(filepath).decode(encoding)


def check_names(names: Sequence[str]) -> None:
    """Check that names can be packed.

    Raises:
        ValueError: One is given twice, leads out of its folder, or has
            characters that an index or a path cannot have.
    """
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f'{name!r} a second time')
        seen.add(name)
        if os.path.isabs(name) or '..' in name.split('/'):
            raise ValueError(f'{name!r} leads out of the folder')
        if any(text in name for text in ('\t', '\n', '://')):
            raise ValueError(
                f'{name!r}: a tab, a line break or "://" cannot be in a name'
            )


def room(name: str, size: int) -> int:
    """Return the bytes that a file takes in a shard."""
    header, length = BLOCK, len(name.encode(**TEXT))
    if length > LONG_NAME:
        header += BLOCK + padded(length + 1)
    return header + padded(size)


def padded(size: int) -> int:
    """Return a size in whole blocks."""
    return -(-size // BLOCK) * BLOCK


def plan(names: Sequence[str], sizes: Sequence[int], limit: int) -> list[int]:
    """Return the shard of each image: the next one where one is full.

    Args:
        names (Sequence[str]): Of the images.
        sizes (Sequence[int]): Theirs, bytes.
        limit (int): The most bytes in a shard; a larger image has its own.
    """
    shards, shard, filled = [], 0, END
    for name, size in zip(names, sizes, strict=True):
        needed = room(name, size)
        if filled > END and filled + needed > limit:
            shard, filled = shard + 1, END
        filled += needed
        shards.append(shard)
    return shards


def write_shards(
    root: str | Path, images: Iterable[tuple[int, str]], out: str | Path
) -> int:
    """Write a folder of shards; it appears only once it is complete.

    The same images give the same bytes.

    Args:
        root (str | Path): Folder of the images.
        images (Iterable[tuple[int, str]]): (shard, name below root) of each,
            shard by shard.
        out (str | Path): What to make. It does not exist, or is empty.

    Returns:
        int: Number of images.

    Raises:
        OSError: An image cannot be read, or a shard not be written.
    """
    out = Path(out).absolute()
    new = out.with_name(f'.{out.name}.tmp-{os.getpid()}')
    new.mkdir(parents=True)
    try:
        lines: list[str] = []
        for number, group in groupby(images, itemgetter(0)):
            shard = f'shard-{number:05d}.tar'
            with open(new / shard, 'wb') as file:
                names = (name for _, name in group)
                lines += (
                    f'{shard}\t{offset}\t{size}\t{name}\n'
                    for name, offset, size in fill(file, Path(root), names)
                )
                file.flush()
                os.fsync(file.fileno())
        with open(new / INDEX, 'w', newline='\n', **TEXT) as file:
            title = f'# {len(lines)} images: shard, offset, size, name\n'
            file.writelines([title, *lines])
            file.flush()
            os.fsync(file.fileno())
        new.rename(out)  # or takes the place of an empty folder
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return len(lines)


def fill(
    file: BinaryIO, root: Path, names: Iterable[str]
) -> Iterator[tuple[str, int, int]]:
    """Write one shard, yield (name, offset, size) of its images."""
    # GNU's format keeps names of any length and characters.
    with tarfile.open(
        fileobj=file, mode='w', format=tarfile.GNU_FORMAT, **TEXT
    ) as archive:
        for name in names:
            content = (root / name).read_bytes()
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
            yield name, file.tell() - padded(header.size), header.size
