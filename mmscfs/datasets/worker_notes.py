# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Says which image a worker process was reading when it died or hung.

Torch's error names the process alone. So each process notes the image that it
reads in memory that it shares with the one it was forked from: about a
microsecond an image. Workers that are spawned share nothing, and so are not
explained.
"""

import mmap
import multiprocessing
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

SLOTS = 4096  # a process's is its id, modulo this
HEADER = struct.Struct('<idHH')  # process, start, is reading, length of path
SLOT = 1024
ROOM = SLOT - HEADER.size
MEMORY = mmap.mmap(-1, SLOTS * SLOT)  # anonymous, shared with forks
PROCESSES = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')
KILL_SECONDS = 5


class Note(NamedTuple):
    """What a process noted last."""

    process: int
    start: float  # by time.monotonic, one clock for all processes
    is_reading: bool
    path: str


def begin(path: str) -> None:
    """Note that this process begins to read an image."""
    name = os.fsencode(path)[-ROOM:]  # its end says more
    process = os.getpid()
    place = process % SLOTS * SLOT
    HEADER.pack_into(MEMORY, place, process, time.monotonic(), 1, len(name))
    place += HEADER.size
    MEMORY[place : place + len(name)] = name


def end() -> None:
    """Note that it has the image; its path stays, as the last one."""
    struct.pack_into('<H', MEMORY, os.getpid() % SLOTS * SLOT + 12, 0)


def read(process: int) -> Note | None:
    """Return the note of a process, None if it made none."""
    place = process % SLOTS * SLOT
    noted, start, is_reading, length = HEADER.unpack_from(MEMORY, place)
    if noted != process:
        return None
    place += HEADER.size
    path = os.fsdecode(MEMORY[place : place + min(length, ROOM)])
    return Note(process, start, bool(is_reading), path)


@contextmanager
def naming_images() -> Iterator[None]:
    """Name the images in torch's error about workers that died or hang.

    Use it around whatever reads batches, e.g. ``runner.train()``.

    Raises:
        RuntimeError: Torch's, of a worker that was killed or made no batch
            for the loader's ``timeout`` seconds, with the image that it was
            reading, if ``LoadImage`` reads them.
    """
    try:
        yield
    except RuntimeError as error:
        explanation = explain(str(error))
        if explanation is None:
            raise
        raise RuntimeError(f'{str(error).strip()} {explanation}') from error


def explain(text: str) -> str | None:
    """Say more about an error of torch's loader; None if it is none."""
    dead = PROCESSES.match(text)
    if dead:
        return explain_dead([int(process) for process in dead[1].split(',')])
    if text.startswith('DataLoader timed out'):
        return explain_hung()
    return None


def explain_dead(processes: list[int]) -> str:
    """Say what workers that died were reading."""
    notes = [note for process in processes if (note := read(process))]
    found = ', '.join(
        f'{"while reading" if n.is_reading else "last read"} {n.path}'
        for n in notes
    )
    return (
        f'({found or "no image was read"}). "Killed" means that the memory '
        'ran out, or that someone ended it: use fewer num_workers, look at '
        'that image, and go on with --resume'
    )


def explain_hung() -> str:
    """Say what workers are reading, and end those that hang there.

    At its end this process waits for its workers, and one that waits for a
    file system may be deaf to the polite signal.
    """
    children = multiprocessing.active_children()
    workers = {w.pid: w for w in children if w.pid is not None}
    notes = [note for process in workers if (note := read(process))]
    hung = sorted((n for n in notes if n.is_reading), key=lambda n: n.start)
    now = time.monotonic()
    found = '; '.join(
        f'worker {n.process} has been reading {n.path} for '
        f'{now - n.start:.0f} s'
        for n in hung
    )
    for note in hung:
        try:
            workers[note.process].kill()
            workers[note.process].join(KILL_SECONDS)
        except RuntimeError as error:
            # Torch raises in whatever runs when a worker of its dies.
            if not PROCESSES.match(str(error)):
                raise
    return (
        f'({found or "no worker is reading an image"}). Look at that file '
        'and its file system; if they are only slow, set the timeout of the '
        'data loader (train_dataloader.timeout, in seconds; 0: none) higher; '
        'and go on with --resume'
    )
