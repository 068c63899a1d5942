# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw some images, nested and by seeds; of a detector, annotated ones."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from .checks.common import build
from .checks.detection import find_reader
from .wrappers import loader_datasets

LOADER = 'train_dataloader'


class Place(NamedTuple):
    """Where an image is."""

    #: The path of its data set's settings, e.g. "train_dataloader.dataset".
    dataset: str
    #: Its number there, after ``filter_cfg``, as ``indices`` count.
    position: int


def find_annotated(cfg: Config) -> list[Place]:
    """Return the training images that have an object to learn.

    Of a data set with ``indices`` these alone. Wrappers, such as
    ConcatDataset and RepeatDataset, may hold several data sets. The scope of
    ``cfg`` must be the current one.

    Raises:
        ValueError: A data set is unknown, or does not read boxes.
    """
    found = []
    for path, settings in loader_datasets(cfg, LOADER):
        kind, _ = find_reader(settings.get('type'))
        if kind is None:
            raise ValueError(
                f'{path}.type={settings.get("type")!r} is not registered: add '
                'its module to custom_imports'
            )
        dataset = build(kind, settings, indices=None, serialize_data=False)
        dataset.full_init()
        images, own = dataset.data_list, settings.get('indices')
        places: Sequence[int] = range(len(images))
        if isinstance(own, int):
            places = places[:own] if own >= 0 else places[own:]
        elif own is not None:
            places = [places[i] for i in own]
        if images and 'instances' not in images[0]:
            raise ValueError(
                f'{path}.type={settings["type"]!r} reads no boxes: name a '
                'config that trains on annotated images alone'
            )
        found += [
            Place(path, i)
            for i in places
            if any(
                not box.get('ignore_flag') for box in images[i]['instances']
            )
        ]
    return found


def count_images(words: Sequence[str], total: int) -> list[int]:
    """Return numbers of images: "48", or "1%" of all.

    Raises:
        ValueError: They do not ascend, or there are not as many.

    Example:
        >>> count_images(['1%', '50'], 1200)
        [12, 50]
    """
    counts = [
        round(float(word[:-1]) * total / 100) if '%' in word else int(word)
        for word in words
    ]
    for word, count in zip(words, counts, strict=True):
        if not 1 <= count <= total:
            raise ValueError(
                f'--images {word}: {count} of {total} annotated images of '
                f'{LOADER}: name a number from 1 to {total}'
            )
    for first, second in pairwise(counts):
        if first >= second:
            raise ValueError(
                f'--images {" ".join(words)}: {second} after {first}. Name '
                'ascending numbers, each once'
            )
    return counts


def draw(images: Sequence, count: int, seed: int) -> list:
    """Draw images; those of a smaller number are among those of a larger."""
    order = np.random.default_rng(seed).permutation(len(images))
    return [images[i] for i in sorted(order[:count])]


def restrict(cfg: Config, images: Sequence[Place]) -> Config:
    """Return a config that trains on some images alone.

    Raises:
        ValueError: One of several data sets has none of them.
    """
    cfg = copy.deepcopy(cfg)
    for path, leaf in loader_datasets(cfg, LOADER):
        indices = [i for dataset, i in images if dataset == path]
        if not indices:
            raise ValueError(
                f'--images {len(images)}: none of those drawn is in {path}, '
                'and mmengine has no empty data sets: name larger numbers'
            )
        leaf['indices'] = indices  # type: ignore[index]
    return cfg
