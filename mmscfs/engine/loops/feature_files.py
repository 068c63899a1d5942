# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Features on disk: written while they are made, read as they are needed.

A folder holds ``<layer>.npy``, float32 of shape (N, C), ``labels.npy``, and
``features.json``, which says what they are features of.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from torch import Tensor, nn

from mmscfs.checkpoint.writing import room_named

from .features import Features, choose_layers, gather_rows

FACTS = 'features.json'
LABELS = 'labels.npy'


class FeatureWriter:
    """Writes all processes' features, ``total`` in number, into one folder.

    Process 0 alone writes, row after row: on a network's file system
    processes that write rows of one file overwrite each other's. The folder
    appears under its name when it is complete; what a killed run leaves has
    another name, and is removed by the next run.

    Raises:
        OSError: The disk lacks room for all features. It is reserved with
            the first batch.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.unfinished = folder.with_name(f'.{folder.name}.unfinished')
        self.total = total
        self.files: dict[str, np.memmap] = {}
        if is_main_process():
            shutil.rmtree(self.unfinished, ignore_errors=True)
            self.unfinished.mkdir(parents=True)

    def write(self, name: str, start: int, features: Tensor) -> None:
        """Write a batch of a layer's features, float32 (B, C).

        Every process gives as many, those of its images from ``start`` on.
        """
        world = get_world_size()
        rows = gather_rows(features, len(features) * world)
        if not is_main_process():
            return
        if name not in self.files:
            path = self.unfinished / f'{name}.npy'
            shape = self.total, features.shape[1]
            with self.room(4 * math.prod(shape)):
                self.files[name] = np.lib.format.open_memmap(
                    path, 'w+', np.float32, shape
                )
                # Else a full disk kills the process when a page is filled.
                if hasattr(os, 'posix_fallocate'):  # not on macOS
                    with open(path, 'r+b') as file:
                        length = path.stat().st_size
                        os.posix_fallocate(file.fileno(), 0, length)
        # The sampler repeats images to give every process as many.
        part = self.files[name][start * world :][: len(rows)]
        part[:] = rows[: len(part)].numpy()

    def finish(self, features: Features, facts: dict) -> None:
        """Add labels and facts, and give the folder its name."""
        labels = gather_rows(features.labels, self.total)
        if is_main_process():
            names = dict(outputs=features.outputs, layers=list(self.files))
            text = json.dumps(facts | names, indent=2)
            with self.room(labels.nbytes + len(text)):
                for file in self.files.values():
                    file.flush()
                np.save(self.unfinished / LABELS, labels.numpy())
                (self.unfinished / FACTS).write_text(text, encoding='utf-8')
                self.unfinished.rename(self.folder)
        barrier()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Write so many bytes, or leave nothing of the folder."""
        try:
            with room_named(self.folder, size):
                yield
        except OSError:
            self.files.clear()
            shutil.rmtree(self.unfinished, ignore_errors=True)
            raise


def read_features(
    folder: Path, facts: dict, layers: str | Sequence[str]
) -> Features:
    """Map this process's part of what FeatureWriter wrote into memory.

    ``facts`` says what they have to be features of.

    Raises:
        ValueError: The folder is damaged, or holds other features.
    """
    remedy = f'name another folder, or delete {str(folder)!r}'
    try:
        found = json.loads((folder / FACTS).read_text(encoding='utf-8'))
        for name, value in facts.items():
            if found[name] != value:
                raise ValueError(
                    f'other {name}, {found[name]!r} instead of {value!r}'
                )
        names = choose_layers(found['outputs'], layers)
        if not set(names) <= set(found['layers']):
            raise ValueError(f'only the layers {found["layers"]}')
        # Copy on write; nothing is written.
        arrays = [
            np.load(folder / f'{n}.npy', mmap_mode='c', allow_pickle=False)
            for n in names
        ]
        labels = np.load(folder / LABELS, allow_pickle=False)
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as e:
        raise ValueError(
            f'features: {str(folder)!r} does not hold the features of this '
            f'evaluation ({e}): {remedy}'
        ) from e
    own = slice(get_rank(), None, get_world_size())
    return Features(
        {
            name: torch.from_numpy(array[own])
            for name, array in zip(names, arrays, strict=True)
        },
        torch.from_numpy(labels[own]),
        torch.arange(len(labels))[own],
        found['outputs'],
    )


def weights_digest(module: nn.Module) -> str:
    """Return a fingerprint of a module's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        value = value.detach().cpu().contiguous()
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def lines_digest(lines: Iterable) -> str:
    """Return a fingerprint of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f'{line}\n'.encode())
    return digest.hexdigest()
