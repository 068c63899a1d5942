# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Look into wrappers of data sets, such as ConcatDataset, RepeatDataset."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmcv.transforms import Compose
from torch.utils.data import Dataset

from .transforms import MultiCrop


def leaf_datasets(
    settings: Mapping | None, path: str = 'dataset'
) -> Iterator[tuple[str, Mapping]]:
    """Yield the settings of the data sets inside wrappers.

    With the path of each, e.g. "train_dataloader.dataset.datasets[0]".
    """
    if not settings:
        return
    if settings.get('dataset') is not None:
        yield from leaf_datasets(settings['dataset'], f'{path}.dataset')
    elif settings.get('datasets') is not None:
        for i, part in enumerate(settings['datasets']):
            yield from leaf_datasets(part, f'{path}.datasets[{i}]')
    else:
        yield path, settings


def loader_datasets(cfg: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Yield those of a loader, e.g. "val_cfg.bank_dataloader"."""
    for key in path.split('.'):
        cfg = (cfg or {}).get(key)
    return leaf_datasets(cfg, path)


def walk(dataset: Any) -> Iterator[Any]:
    """Yield a built data set, and then those inside it."""
    yield dataset
    inner = getattr(dataset, 'dataset', None)
    for part in getattr(dataset, 'datasets', None) or [inner]:
        if part is not None:
            yield from walk(part)


def innermost(dataset: Dataset) -> Any:
    """Return the first data set within wrappers that has a pipeline."""
    return next((d for d in walk(dataset) if hasattr(d, 'pipeline')), None)


def find_multi_crop(dataset: Dataset) -> tuple[Compose, MultiCrop] | None:
    """Return what makes the images of a data set, and its MultiCrop.

    None if it has none. The data set may be wrapped in others. The MultiCrop
    is a copy that finishes the colors itself, with the values that it would
    leave to the device.
    """
    pipeline = getattr(innermost(dataset), 'pipeline', None)
    transforms = getattr(pipeline, 'transforms', ())
    for i, transform in enumerate(transforms):
        if isinstance(transform, MultiCrop):
            transform = copy.copy(transform)
            transform.color_on_device = False
            return Compose(list(transforms[:i])), transform
    return None
