# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What runs were set to, where they ran and what they reached, in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

from .words import SCORES

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


class Settings:
    """Look settings up by their dotted name; what is not there is None.

    Args:
        cfg (Mapping): The config.
    """

    def __init__(self, cfg: Mapping) -> None:
        self.flat = dict(flatten(cfg))

    def __call__(self, name: str) -> Any:
        return self.flat.get(name)

    def of_type(self, kind: str, below: str = '') -> Mapping[str, Any]:
        """Return the settings of the first part of that type."""
        for name, value in self.flat.items():
            if (
                name.startswith(below)
                and name.endswith('.type')
                and str(value).split('.')[-1] == kind
            ):
                prefix = name.removesuffix('type')
                return {
                    key.removeprefix(prefix): value
                    for key, value in self.flat.items()
                    if key.startswith(prefix)
                }
        return {}


def describe(run: RunLog) -> dict[str, str]:
    """Return what a run was set to, the most telling first."""
    get = Settings(run.cfg)
    origin = run.origin
    planned, unit = run.planned
    # A config's variables hold one as well, without later changes.
    crops = get.of_type('MultiCrop', 'train_dataloader.')
    temperature = get.of_type('TeacherTemperatureHook')
    momentum = get.of_type('MomentumTeacherHook').get('momentum')
    backbone = get_mapping(run.cfg, 'model', 'backbone')
    found = {
        'Method': origin.method,
        'Backbone': backbone_name(backbone) if backbone else None,
        'Data': origin.data,
        'Starts from': _start(run),
        'Images in a step': origin.batch_size,
        'Length': f'{planned} {unit}' if planned else None,
        'Optimiser': get('optim_wrapper.optimizer.type'),
        'Learning rate': _rate(get),
        'Weight decay': get('optim_wrapper.optimizer.weight_decay'),
        'Schedule': _schedulers(run.cfg.get('param_scheduler')),
        'Precision': get('optim_wrapper.precision'),
        'Global crops': _crops(crops, 'global', 2),
        'Local crops': _crops(crops, 'local', crops.get('num_local')),
        'Search layers': origin.recipe.get('search_layers'),
        'Search': origin.recipe.get('search'),
        'Prototypes': get('model.neck.num_prototypes'),
        'Teacher temperature': _range(temperature),
        'Teacher momentum at first': momentum,
        'Momentum of the centre': get('model.head.center_momentum'),
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


def _rate(get: Settings) -> str | None:
    rate = get('optim_wrapper.optimizer.lr')
    images = get('auto_scale_lr.base_batch_size')
    if rate is not None and images and get('auto_scale_lr.enable'):
        return f'{rate} for {images} images, scaled to those in a step'
    return rate


def _crops(crops: Mapping, kind: str, number: Any) -> str | None:
    size, scale = crops.get(f'{kind}_size'), crops.get(f'{kind}_scale')
    parts = [f'{number} a view'] if not size else [f'{number} of {size} px']
    if not crops or number is None:
        return None
    if isinstance(scale, list) and len(scale) == 2:
        parts.append(f'{scale[0]} to {scale[1]} of the area')
    return ', '.join(parts)


def _range(temperature: Mapping) -> str | None:
    start, end = temperature.get('start'), temperature.get('end')
    if start is None or end is None or start == end:
        return None if start is None else str(start)
    epochs = temperature.get('warmup_epochs')
    return f'{start} to {end}' + (f' over {epochs} epochs' if epochs else '')


def to_text(value: Any) -> str:
    """Return a setting as text for a table's cell."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 1]}…'


def differences(runs: Sequence[RunLog]) -> tuple[list[list[str]], int]:
    """Return the settings that runs do not have in common.

    Returns:
        tuple[list[list[str]], int]: Rows of a name and a value for each run,
        "–" where it has no such setting; and how many more there are.
    """
    flats = [dict(flatten(run.cfg)) for run in runs]
    names = dict.fromkeys(name for flat in flats for name in flat)
    rows = []
    for name in names:
        values = [
            to_text(flat[name]) if name in flat else '–' for flat in flats
        ]
        if len(set(values)) > 1 and name != 'work_dir':
            rows.append([name, *values])
    return rows[:MOST], max(len(rows) - MOST, 0)


def compare(parts: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Return rows of a name and the value of each part, "–" of none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return [[name, *(part.get(name, '–') for part in parts)] for name in names]


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


def last_score(run: RunLog) -> str | None:
    """Return the last validation's score, in words."""
    for line in reversed(run.val):
        for name, (title, factor) in SCORES.items():
            if math.isfinite(line.get(name, math.nan)):
                text = f'{title} {factor * line[name]:.3g} %'
                if name == 'knn/top1' and 'knn/k' in line:
                    text += f' (k = {line["knn/k"]:.0f})'
                by_epoch = run.epoch_length is not None
                at = run.position(line, by_epoch)
                word = 'epoch' if by_epoch else 'iteration'
                return f'{text} at {word} {at:g}'
    return None


class Score(NamedTuple):
    """A result that an evaluation wrote: of a run, and what it says."""

    run: str
    facts: list[str]
    metrics: list[str]


def results(run: RunLog, name: str, notes: list[str]) -> list[Score]:
    """Return what evaluations and tests wrote; the unreadable is noted."""
    scores: list[Score] = []
    evaluated: list[Mapping[str, float]] = []
    for path in sorted(run.folder.rglob('*.json')):
        try:
            found = find_results([path]) if is_result(path) else {}
        except (ValueError, OSError) as error:
            notes.append(f'{name}: {error}')
            continue
        for result in found.values():
            facts = [
                result.protocol,
                result.dataset,
                result.checkpoint or '–',
                result.network or '–',
            ]
            metrics = {
                k: v for k, v in result.metrics.items() if v is not None
            }
            evaluated.append(metrics)
            scores.append(_score(name, facts, metrics))
    for start in run.starts if run.kind != 'detection' else ():
        if start.test:
            taken = ('time', 'data_time', 'step')
            metrics = {k: v for k, v in start.test.items() if k not in taken}
            if any(metrics.items() <= known.items() for known in evaluated):
                continue  # its evaluation wrote the same, and more, above
            facts = ['test', run.origin.data or '–', '–', '–']
            scores.append(_score(name, facts, metrics))
    return scores


def _score(run: str, facts: list[str], metrics: Mapping[str, float]) -> Score:
    own = next((key for key in SCORES if key in metrics), None)
    text = f'{SCORES[own][0]} {metrics[own]:.2f} %' if own else '–'
    texts = [f'{key} {value:.2f}' for key, value in metrics.items()]
    return Score(run, [*facts, text], texts)


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
