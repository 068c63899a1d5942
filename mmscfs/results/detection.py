# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What detection runs reached, as tables need it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmscfs.datasets.wrappers import leaf_datasets

from .origin import Origin, backbone_name
from .paper import UNTRAINED, Entry
from .run_log import Line, read_log, read_starts, schedule

# Column -> its name in the log, a fraction of 1.
VOC_SCORES = {
    'AP^b': 'pascal_voc/mAP',
    'AP50^b': 'pascal_voc/AP50',
    'AP75^b': 'pascal_voc/AP75',
}
COCO_SCORES = {
    'AP^b': 'coco/bbox_mAP',
    'AP50^b': 'coco/bbox_mAP_50',
    'AP75^b': 'coco/bbox_mAP_75',
    'AP^s': 'coco/segm_mAP',
    'AP50^s': 'coco/segm_mAP_50',
    'AP75^s': 'coco/segm_mAP_75',
}


def read_run(folder: str | Path) -> Entry:
    """Read a work directory; the last validation counts, not the best.

    Raises:
        ValueError: It is not the work directory of a detection run, or a
            file in it is damaged.
        OSError: A file cannot be read.

    Example:
        >>> read_run('work_dirs/mask-rcnn_scfs').scores['AP^b']
        40.5
    """
    log = read_log(folder)
    cfg, origin, name = log.cfg, log.started_from, str(folder)
    split, problem = 'val', ''
    tests = [start for start in log.starts if start.test]
    if tests and not log.lines:
        split, cfg, metrics = 'test', tests[-1].cfg, tests[-1].test
        checkpoint = Path(str(cfg.get('load_from')))
        name += f', test of {checkpoint.name}'
        # The run that was tested knows what it started from.
        origin = Origin()
        if read_starts(checkpoint.parent):
            origin = read_log(checkpoint.parent).started_from
    elif not cfg.get('val_evaluator'):
        raise ValueError(
            f'{name!r} is not a detection run: its config lacks val_evaluator'
        )
    else:
        metrics, problem = log.last_validation()
    for start in log.starts:
        if start.damaged:
            raise ValueError(
                f"'{start.folder}/vis_data/scalars.json' has {start.damaged} "
                'damaged lines (each must be a JSON object): remove them'
            )
    scores = read_scores(metrics, cfg.get(f'{split}_evaluator'))
    if not (problem or scores):
        problem = 'its scores lack AP (was nothing detected?)'
    facts = read_facts(cfg, split, origin)
    return Entry(origin, facts, scores, name, name, name, problem)


def read_facts(cfg: Mapping, split: str, origin: Origin) -> dict[str, object]:
    """Return what the paper's tables tell runs apart by.

    The run was evaluated on "val" or "test", and its backbone started from
    ``origin``.
    """
    pretraining = 'COCO' if 'coco' in origin.data.lower() else 'others'
    return {
        'protocol': 'detection',
        'detector': detector_name(cfg['model']),
        'length': ' '.join(map(str, schedule(cfg))),
        'files': ', '.join(
            str(Path(leaf.get('data_root') or '', leaf.get('ann_file') or ''))
            for leaf in leaves(cfg, split)
        ),
        'data': data_name(cfg, split),
        'training data': data_name(cfg, 'train'),
        'pre-trained on': None if origin.method in UNTRAINED else pretraining,
    }


def detector_name(model: Mapping) -> str:
    """Return what to call a detector, e.g. "MaskRCNN ResNet-50 FPN"."""
    words = [
        str(model.get('type')),
        backbone_name(model.get('backbone') or {}),
    ]
    if neck := model.get('neck'):
        parts = [neck] if isinstance(neck, Mapping) else neck
        words += [str(part.get('type')) for part in parts]
    elif 'shared_head' in (model.get('roi_head') or {}):
        words.append('C4')
    box_head = (model.get('roi_head') or {}).get('bbox_head') or {}
    if isinstance(box_head, Mapping) and str(box_head.get('type')).endswith(
        'Shared4Conv1FCBBoxHead'
    ):
        words.append('4conv1fc')  # not the detector of the paper's tables
    return ' '.join(words)


def data_name(cfg: Mapping, split: str) -> str:
    """Return the names of a split's annotation files, and VOC's years.

    It says if the data set has not all images, or other classes.
    """
    names = set()
    for leaf in leaves(cfg, split):
        file = str(leaf.get('ann_file'))
        name = '/'.join(re.findall(r'VOC\d{4}(?=/)|[^/]+$', file))
        count = len((leaf.get('metainfo') or {}).get('classes') or '')
        if leaf.get('indices') is not None or count not in (0, 20, 80):
            name += ' in part'
        names.add(name)
    return ', '.join(sorted(names))


def leaves(cfg: Mapping, split: str) -> Iterator[Mapping]:
    """Yield the data sets of a split, without their wrappers."""
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    for _, leaf in leaf_datasets(dataset, 'dataset'):
        yield leaf


def read_scores(
    metrics: Line, evaluator: Mapping | Sequence | None
) -> dict[str, float]:
    """Return the scores that there are, in percent by column."""
    names = VOC_SCORES if 'pascal_voc/mAP' in metrics else COCO_SCORES
    scores = {
        column: 100 * metrics[name]
        for column, name in names.items()
        # COCO's API says -1, or NaN, where it has nothing.
        if metrics.get(name, -1) >= 0
    }
    if isinstance(evaluator, Mapping):
        evaluator = [evaluator]
    for part in evaluator or []:
        thresholds = part.get('iou_thrs', 0.5)
        if str(part.get('type')).endswith('VOCMetric') and (
            not isinstance(thresholds, list) or len(thresholds) < 10
        ):
            # mmdet's mAP is the mean over these, not over 0.50 to 0.95.
            scores.pop('AP^b', None)
    return scores
