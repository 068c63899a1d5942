# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check data before a run: files, images, classes, labels, boxes and masks."""

from collections.abc import Sequence

from mmengine.config import Config

from .classification import check_classification_data
from .detection import check_detection_data

__all__ = [
    'check_classification_data',
    'check_data',
    'check_detection_data',
]


def check_data(cfg: Config, splits: Sequence[str] = ('train', 'val')) -> None:
    """Check the data sets of a config against disk and model.

    They may be inside any wrapper. Data sets of unknown classes, and files
    that are not on a disk, are left to themselves. Of each, 20 images are
    opened.

    Args:
        cfg (Config): Any config; nothing is changed.
        splits (Sequence[str]): The data loaders that the run will use, of
            "train", "val" and "test". Defaults to ("train", "val").

    Raises:
        FileNotFoundError: Annotations, lists or images are missing.
        ValueError: They are damaged, or do not fit each other, the classes
            or the model. Both name the setting, its value and the remedy.

    Example:
        >>> check_data(Config.fromfile('configs/scfs_r50.py'))
    """
    check_detection_data(cfg, splits)
    check_classification_data(cfg, splits)
