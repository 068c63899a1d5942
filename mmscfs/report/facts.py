# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What runs were set to, where they ran and what they reached, as tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmscfs.checkpoint import flatten
from mmscfs.results import (
    UNUSABLE,
    RunLog,
    backbone_name,
    find_results,
    get_mapping,
    is_result,
)
from mmscfs.results.detection import COCO_SCORES, VOC_SCORES, describe_run

from .charts import SCORES
from .verdict import find_part

LONGEST = 160  # characters of a setting in a table
MOST = 150  # differences
MACHINE = (
    'CUDA available',
    'Python',
    'PyTorch',
    'TorchVision',
    'OpenCV',
    'MMEngine',
    'GPU number',
    'seed',
    'sys.platform',
)
Rows = list[list[str]]


def describe(run: RunLog) -> dict[str, str]:
    """Return what a run was set to, the most telling settings first."""
    get = dict(flatten(run.cfg)).get
    origin = run.origin
    planned, unit = run.planned
    # A config's variables have crops too, without later changes.
    crops = find_part(run.cfg, 'MultiCrop', 'train_dataloader.')
    temperature = find_part(run.cfg, 'TeacherTemperatureHook')
    backbone = get_mapping(run.cfg, 'model', 'backbone')
    rate = get('optim_wrapper.optimizer.lr')
    images = get('auto_scale_lr.base_batch_size')
    if rate is not None and images and get('auto_scale_lr.enable'):
        rate = f'{rate} for {images} images, scaled to those in a step'
    found = {
        'Method': origin.method,
        'Backbone': backbone_name(backbone) if backbone else None,
        'Data': origin.data,
        'Starts from': _start(run),
        'Images in a step': origin.batch_size,
        'Length': f'{planned} {unit}' if planned else None,
        'Optimizer': get('optim_wrapper.optimizer.type'),
        'Learning rate': rate,
        'Weight decay': get('optim_wrapper.optimizer.weight_decay'),
        'Schedule': _schedulers(run.cfg.get('param_scheduler')),
        'Precision': get('optim_wrapper.precision'),
        'Global crops': _crops(crops, 'global', 2),
        'Local crops': _crops(crops, 'local', crops.get('num_local')),
        'Search layers': origin.recipe.get('search_layers'),
        'Search': origin.recipe.get('search'),
        'Prototypes': get('model.neck.num_prototypes'),
        'Teacher temperature': _range(temperature),
        'Teacher momentum at first': find_part(
            run.cfg, 'MomentumTeacherHook'
        ).get('momentum'),
        'Momentum of the center': get('model.head.center_momentum'),
        'Seed': get('randomness.seed'),
    }
    return {
        name: to_text(value)
        for name, value in found.items()
        if value not in (None, '', [])
    }


def _start(run: RunLog) -> str | None:
    if run.kind == 'pre-training' or not run.cfg.get('model'):
        return None
    label = run.started_from.label
    return None if label == '-' else label


def _schedulers(schedulers: Any) -> str:
    found = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    return ', '.join(
        str(item.get('type'))
        for item in found or ()
        if isinstance(item, Mapping)
    )


def _crops(crops: Mapping, kind: str, number: Any) -> str | None:
    if not crops or number is None:
        return None
    size, scale = crops.get(f'{kind}_size'), crops.get(f'{kind}_scale')
    text = f'{number} of {size} px' if size else f'{number} per view'
    if isinstance(scale, list) and len(scale) == 2:
        text += f', {scale[0]} to {scale[1]} of the area'
    return text


def _range(temperature: Mapping) -> str | None:
    start, end = temperature.get('start'), temperature.get('end')
    if start is None or end in (None, start):
        return None if start is None else str(start)
    epochs = temperature.get('warmup_epochs')
    return f'{start} to {end}' + (f' over {epochs} epochs' if epochs else '')


def to_text(value: Any) -> str:
    """Return a setting as text for a table's cell."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 1]}…'


def compare(parts: Sequence[Mapping[str, str]]) -> Rows:
    """Return rows of a name and the value of each part, "–" of none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return [[name, *(part.get(name, '–') for part in parts)] for name in names]


def differences(runs: Sequence[RunLog]) -> tuple[Rows, int]:
    """Return the settings that runs do not have in common.

    Returns:
        tuple[list[list[str]], int]: Rows as of :func:`compare`, and how many
        more there are.
    """
    flats = [
        {name: to_text(value) for name, value in flatten(run.cfg)}
        for run in runs
    ]
    rows = [
        row
        for row in compare(flats)
        if len(set(row[1:])) > 1 and row[0] != 'work_dir'
    ]
    return rows[:MOST], max(len(rows) - MOST, 0)


def machine(run: RunLog) -> dict[str, str]:
    """Return the environment's most telling lines."""
    found = run.environment
    # mmengine puts GPUs of a kind together: "GPU 0,1,2,3".
    names = [
        name
        for name in found
        if name.startswith('GPU ') and name != 'GPU number'
    ]
    names += [name for name in MACHINE if name in found]
    return {name: to_text(found[name]) for name in names}


def score_of(metrics: Mapping[str, float | None], digits: str) -> str | None:
    """Return the score that metrics are known for, in words."""
    for kind in SCORES:
        for name in kind.names.split('|'):
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                return f'{kind.title} {kind.scale * value:{digits}} %'
    return None


def last_score(run: RunLog) -> str | None:
    """Return the last validation's score, in words."""
    for line in reversed(run.val):
        text = score_of(line, '.3g')
        if text is not None:
            if text.startswith('k-NN') and 'knn/k' in line:
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
            facts = [result.protocol, result.dataset, result.checkpoint]
            facts.append(result.network)
            rows.append([name, *(f or '–' for f in facts)])
            rows[-1] += _scores(result.metrics)
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
        found = describe_run(run)
    except UNUSABLE as error:
        return [name, '–', *['–'] * len(COCO_SCORES), str(error)]
    # VOC has the first three.
    columns = dict(COCO_SCORES, **VOC_SCORES)
    scores = [found.scores.get(column) for column in columns]
    texts = ['–' if s is None else f'{s:.1f}' for s in scores]
    return [name, found.start.label, *texts, found.problem]
