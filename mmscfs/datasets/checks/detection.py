# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check the data sets of a detector."""

import os.path as osp
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmscfs.compatibility import check_package

from ..wrappers import loader_datasets
from .annotations import Annotations, check_annotations
from .coco import find_coco, read_coco
from .common import build, check_count, is_on_disk, need
from .voc import find_voc

# Heads that count the classes of the data set, and the part of HTC's that
# counts those of COCO-stuff.
HEADS = ('bbox_head', 'mask_head', 'roi_head')
OTHER_HEAD = 'semantic_head'


def check_detection_data(
    cfg: Config, splits: Sequence[str] = ('train', 'val')
) -> None:
    """Check the data sets of a detection config against disk and model.

    Arguments and errors are those of :func:`check_data`. Looks at mmdet's
    CocoDataset, XMLDataset, VOCDataset and the subclasses that read their
    files in the same way: that annotations, images and classes fit each
    other, and the model's heads have as many classes.
    """
    leaves = [
        leaf
        for split in splits
        # A box probe has a bank.
        for path in (f'{split}_dataloader', f'{split}_cfg.bank_dataloader')
        for leaf in loader_datasets(cfg, path)
    ]
    if cfg.get('default_scope') != 'mmdet' and not any(
        str(settings.get('type')).startswith('mmdet.')
        for _, settings in leaves
    ):
        return  # mmdet is slow to import, and pre-training does without
    check_package('mmdet')
    for where, settings in leaves:
        kind, read = find_reader(settings.get('type'))
        if read is None:
            continue
        if not isinstance(settings.get('ann_file', ''), str):
            raise ValueError(
                f'{where}.ann_file={settings["ann_file"]!r} must be one path: '
                "for several use type='ConcatDataset' with a list datasets"
            )
        dataset = build(kind, settings)
        classes = dataset.metainfo.get('classes')
        if not classes or isinstance(classes, str):
            raise ValueError(
                f'{where}.metainfo has classes={classes!r}: give their names, '
                "e.g. metainfo=dict(classes=('cat', 'dog')); a single one "
                "needs its comma, ('cat',)"
            )
        if not dataset.return_classes:  # else the model reads the names
            heads = head_classes(cfg.get('model', {}), 'model', False)
            for setting, count in heads:
                check_count(setting, count, where, classes)
        if is_on_disk(settings):
            need(dataset.ann_file, f'{where}.ann_file', dataset)
            steps = settings.get('pipeline') or ()
            found = read(dataset, where)
            check_annotations(found, dataset, where, steps)
            split = where.split('_')[0]
            if read is find_coco and split != 'train':
                kept = settings.get('indices')
                check_evaluators(cfg, split, found, where, kept)


def check_evaluators(
    cfg: Config,
    split: str,
    found: Annotations,
    where: str,
    kept: int | Sequence[int] | None,
) -> None:
    """Check that COCO's metric has the annotations of the images, and no more.

    pycocotools compares with its own file, and only after an evaluation.
    ``kept`` are the data set's ``indices``.

    Raises:
        FileNotFoundError: The file of a metric does not exist.
        ValueError: It has other images.
    """
    evaluators = cfg.get(f'{split}_evaluator') or []
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    source = found.images[0].source  # names the setting and the file
    for evaluator in evaluators:
        path = evaluator.get('ann_file')
        kind = str(evaluator.get('type')).split('.')[-1]
        if kind != 'CocoMetric' or not path or not is_on_disk(evaluator):
            continue
        setting = f'{split}_evaluator.ann_file={path!r}'
        if not osp.isfile(path):
            raise FileNotFoundError(
                f'{setting} does not exist: set it to the file of {source}'
            )
        images = found.images
        if repr(path) != source.partition('=')[2]:
            images = read_coco(path, setting, False)[0]
        number = abs(kept) if isinstance(kept, int) else len(kept or images)
        if number < len(images) - 1:  # the last holds strays
            raise ValueError(
                f'{setting} has {len(images) - 1} images, but {where}.indices'
                f' keeps {number}: all objects of the others would count as '
                'missed. Remove indices, or name a file of these images alone'
            )
        known = {image.file for image in images}
        lost = [i.file for i in found.images if i.file not in known]
        if lost:
            raise ValueError(
                f'{setting} lacks {len(lost)} images of {source}, e.g. '
                f'{lost[0]!r}: set both to the same file'
            )


def find_reader(kind: Any) -> tuple[Any, Callable | None]:
    """Return a data set's class, and the reader of its files.

    The reader is None for a class that finds or parses its files in another
    way than mmdet's CocoDataset and XMLDataset.
    """
    from mmdet.datasets import CocoDataset, XMLDataset
    from mmdet.registry import DATASETS

    found: Any = DATASETS.get(kind) if isinstance(kind, str) else kind
    for base, reader in ((CocoDataset, find_coco), (XMLDataset, find_voc)):
        if (
            found is not None
            and issubclass(found, base)
            and found.load_data_list is base.load_data_list
            and found.parse_data_info is base.parse_data_info
        ):
            return found, reader
    return found, None


def head_classes(
    part: Mapping | Sequence, path: str, inside: bool
) -> Iterator[tuple[str, int]]:
    """Yield every ``num_classes`` in the heads: (path of setting, value)."""
    if isinstance(part, Mapping):
        items = [(key, f'{path}.{key}', v) for key, v in part.items()]
    else:
        items = [('', f'{path}[{i}]', v) for i, v in enumerate(part)]
    for key, name, value in items:
        if inside and key == 'num_classes':
            yield name, value
        elif isinstance(value, (Mapping, list, tuple)) and key != OTHER_HEAD:
            yield from head_classes(value, name, inside or key in HEADS)
