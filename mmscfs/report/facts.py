# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What runs were set to and what they reached, as rows of tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmscfs.checkpoint import flatten
from mmscfs.results import (
    RunLog,
    backbone_name,
    find_results,
    get_mapping,
    is_result,
)
from mmscfs.results.detection import COCO_SCORES, VOC_SCORES, read_run

from .charts import KINDS
from .verdict import find_part

LONGEST = 160  # characters of a setting in a table
MOST = 150  # differences
Rows = list[list[str]]


def describe(run: RunLog) -> dict[str, Any]:
    """Return what a run was set to, the most telling settings first."""
    cfg, origin, (planned, unit) = run.cfg, run.origin, run.planned
    backbone = get_mapping(cfg, 'model', 'backbone')
    wrapper = get_mapping(cfg, 'optim_wrapper')
    neck = get_mapping(cfg, 'model', 'neck')
    head = get_mapping(cfg, 'model', 'head')
    scaling = get_mapping(cfg, 'auto_scale_lr')
    images = scaling.get('base_batch_size')
    schedulers = cfg.get('param_scheduler')
    start = run.started_from.label if run.kind != 'pre-training' else '-'
    found = {
        'Method': origin.method,
        'Backbone': backbone_name(backbone) if backbone else None,
        'Data': origin.data,
        'Starts from': None if start == '-' else start,
        'Images in a step': origin.batch_size,
        'Length': f'{planned} {unit}' if planned else None,
        'Optimizer': _settings(get_mapping(wrapper, 'optimizer')),
        'Learning rate': f'of {images} images, scaled to those in a step'
        if images and scaling.get('enable')
        else None,
        'Schedule': ', '.join(
            str(get_mapping(item).get('type'))
            for item in (
                schedulers if isinstance(schedulers, list) else [schedulers]
            )
            if item
        ),
        'Precision': wrapper.get('precision'),
        # A config's variables have crops too, without later changes.
        'Crops': _settings(find_part(cfg, 'MultiCrop', 'train_dataloader.')),
        'Search layers': origin.recipe.get('search_layers'),
        'Search': origin.recipe.get('search'),
        'Prototypes': neck.get('num_prototypes'),
        'Teacher temperature': _settings(
            find_part(cfg, 'TeacherTemperatureHook')
        ),
        'Teacher': _settings(find_part(cfg, 'MomentumTeacherHook')),
        'Momentum of the center': head.get('center_momentum'),
        'Seed': get_mapping(cfg, 'randomness').get('seed'),
    }
    return {k: v for k, v in found.items() if v not in (None, '', [])}


def _settings(part: Mapping) -> str:
    return ', '.join(f'{name}={value}' for name, value in part.items())


def to_text(value: Any) -> str:
    """Return a setting as text for a table's cell."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 1]}…'


def compare(parts: Sequence[Mapping[str, Any]]) -> Rows:
    """Return rows of a name and the value of each part, "–" of none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return [
        [name, *(to_text(part.get(name, '–')) for part in parts)]
        for name in names
    ]


def differences(runs: Sequence[RunLog]) -> tuple[Rows, int]:
    """Return the settings that runs do not have in common.

    Returns:
        tuple[list[list[str]], int]: Rows as of :func:`compare`, and how many
        more there are.
    """
    rows = [
        row
        for row in compare([dict(flatten(run.cfg)) for run in runs])
        if len(set(row[1:])) > 1 and row[0] != 'work_dir'
    ]
    return rows[:MOST], max(len(rows) - MOST, 0)


def score_of(metrics: Mapping[str, float | None], digits: str) -> str | None:
    """Return the score that metrics are known for, in words."""
    for kind in KINDS:
        for name in kind.names.split('|') if kind.section == 'Scores' else ():
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                value *= float(kind.scale)
                return f'{kind.title} {value:{digits}} {kind.unit}'
    return None


def last_score(run: RunLog) -> str | None:
    """Return the last validation's score, in words."""
    for line in reversed(run.val):
        if text := score_of(line, '.3g'):
            if 'knn/top1' in line and 'knn/k' in line:
                text += f' (k = {line["knn/k"]:.0f})'
            by_epoch = run.epoch_length is not None
            at = run.position(line, by_epoch)
            return f'{text} at {"epoch" if by_epoch else "iteration"} {at:g}'
    return None


def results(run: RunLog, name: str, notes: list[str]) -> Rows:
    """Return what evaluations and tests wrote; the unreadable is noted.

    Returns:
        list[list[str]]: Rows of the run, the protocol, data set, checkpoint
        and network, its score, and all scores.
    """
    rows: Rows = []
    evaluated: list[Mapping[str, float]] = []
    for path in sorted(run.folder.rglob('*.json')):
        try:
            found = find_results([path]) if is_result(path) else {}
        except (ValueError, OSError) as error:
            notes.append(f'{name}: {error}')
            continue
        for result in found.values():
            evaluated.append(result.metrics)
            facts = [result.protocol, result.dataset]
            facts += [result.checkpoint or '–', result.network or '–']
            rows.append([name, *facts, *_scores(result.metrics)])
    for start in run.starts if run.kind != 'detection' else ():
        taken = ('time', 'data_time', 'step')
        metrics = {k: v for k, v in start.test.items() if k not in taken}
        # An evaluation in this folder wrote the same, and more, above.
        if metrics and not any(
            metrics.items() <= e.items() for e in evaluated
        ):
            facts = ['test', run.origin.data or '–', '–', '–']
            rows.append([name, *facts, *_scores(metrics)])
    return rows


def _scores(metrics: Mapping[str, float | None]) -> list[str]:
    texts = [f'{k} {v:.2f}' for k, v in metrics.items() if v is not None]
    return [score_of(metrics, '.2f') or '–', ', '.join(texts)]


def detections(run: RunLog, name: str) -> list[str] | None:
    """Return a row of a detection run's last scores; None of another run."""
    if run.kind != 'detection':
        return None
    try:
        found = read_run(run.folder)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return [name, '–', *['–'] * len(COCO_SCORES), str(error)]
    # VOC has the first three.
    columns = dict(COCO_SCORES, **VOC_SCORES)
    scores = [found.scores.get(column) for column in columns]
    texts = ['–' if s is None else f'{s:.1f}' for s in scores]
    return [name, found.origin.label, *texts, found.problem]
