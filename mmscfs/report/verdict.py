# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Say whether a run learns, by the criteria of its collapse monitor."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mmscfs.evaluation import CollapseCriteria
from mmscfs.results import Line, RunLog, get_mapping

MONITOR = 'CollapseMonitorHook'
# What tells of quality, the better one first.
QUALITY = {'knn/top1': 'k-NN accuracy', 'view_recall/top1': 'view recall'}
REMEDY = 'Lower the learning rate, or turn mixed precision off.'


class Verdict(NamedTuple):
    """What there is to say of a run."""

    #: "learning", "in doubt", "no collapse", "not learning yet", "too early",
    #: "collapsed", "diverged" or "not judged".
    word: str
    reason: str  #: Why: a sentence or two.


def judge(run: RunLog) -> Verdict:
    """Say whether a run is learning.

    The means of its last lines are compared with the criteria. The hook has
    every iteration and the log only some, so they may differ at the edge.
    """
    if not run.train:
        return Verdict('not judged', 'It has not logged a training step.')
    last = run.train[-1]
    if not math.isfinite(last.get('loss', 0.0)):
        where = f'The loss is not finite at iteration {last["at"]:.0f}'
        return Verdict('diverged', f'{where}. {REMEDY}')
    prototypes, criteria, reason = num_prototypes(run), criteria_of(run), ''
    if run.kind != 'pre-training':
        reason = 'Only pre-training can collapse. See its loss and scores.'
    elif not any('teacher_entropy' in line for line in run.train):
        reason = 'It does not log teacher_entropy. See its loss and scores.'
    elif prototypes is None:
        reason = 'Its config lacks model.neck.num_prototypes.'
    elif criteria is None:
        reason = f'Its config has settings that {MONITOR} refuses.'
    if reason or prototypes is None or criteria is None:
        return Verdict('not judged', reason)
    weight, top = loss_weight(run), math.log(prototypes)
    recent = [v for v in run.train if v['at'] > last['at'] - criteria.window]
    entropy, loss = means(recent, weight)
    if math.isnan(entropy):
        losses = [line['loss_dino'] for line in recent if 'loss_dino' in line]
        if losses and not any(map(math.isfinite, losses)):
            return Verdict(
                'diverged',
                'The loss on the last layer is not finite in any line up to '
                f'iteration {last["at"]:.0f}. {REMEDY}',
            )
        reason = 'loss_dino with a finite teacher_entropy'
        if math.isnan(weight):
            reason = 'loss_dino: model.head.loss_weight is 0'
        return Verdict(
            'not judged',
            f'Its last {criteria.window} iterations lack {reason}.',
        )
    young = last['at'] < criteria.first_look
    figures = (
        f'teacher entropy {entropy:.3g} of at most {top:.3g}, loss on the '
        f'last layer {loss:.3g}'
    )
    finding = criteria.diagnose(entropy, loss, prototypes)
    if young and (finding or loss >= top):
        return Verdict(
            'too early',
            f'Too soon to tell: {figures}. So it is in many young runs, and '
            'in those too short for their data. The monitor looks from '
            f'iteration {criteria.first_look} on.',
        )
    if finding:
        return Verdict('collapsed', f'{finding[0].upper()}{finding[1:]}.')
    if loss >= top:
        return Verdict(
            'not learning yet',
            f'Its loss is above that of a guess, ln K = {top:.3g}: {figures}.',
        )
    seen = 'No collapse seen'
    warned = first_finding(run, criteria, prototypes)
    if warned is not None:
        seen = f'It recovered from signs of collapse at iteration {warned}'
    for name, what in QUALITY.items():
        scores = [line[name] for line in run.val if name in line]
        if len(scores) < 2:
            continue
        word = 'learning' if scores[-1] > scores[0] else 'in doubt'
        has = 'has risen' if word == 'learning' else 'has not risen'
        return Verdict(
            word,
            f'{seen}; {what} {has}: {scores[0]:.3g} % at first, '
            f'{scores[-1]:.3g} % now.',
        )
    return Verdict(
        'no collapse',
        f'{seen}; quality was not measured twice: {figures}. ViewRecallHook '
        'measures it without labels, k-NN with them.',
    )


def means(lines: Iterable[Line], weight: float) -> tuple[float, float]:
    """Return teacher entropy and unweighted loss of lines; NaN of none.

    Lines that are not finite, as of a step that mixed precision skipped, do
    not count.
    """
    pairs = [
        (line['teacher_entropy'], line['loss_dino'] / weight)
        for line in lines
        if 'teacher_entropy' in line and 'loss_dino' in line
    ]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not pairs:
        return math.nan, math.nan
    entropy, loss = np.mean(pairs, axis=0)
    return float(entropy), float(loss)


def first_finding(
    run: RunLog, criteria: CollapseCriteria, prototypes: int
) -> int | None:
    """Return the iteration at which the monitor would have warned."""
    weight = loss_weight(run)
    windows: dict[int, list[Line]] = {}
    for line in run.train:
        end = math.ceil(line['at'] / criteria.window) * criteria.window
        windows.setdefault(end, []).append(line)
    for end, lines in windows.items():
        if criteria.first_look <= end <= run.train[-1]['at'] and (
            criteria.diagnose(*means(lines, weight), prototypes)
        ):
            return end
    return None


def criteria_of(run: RunLog) -> CollapseCriteria | None:
    """Return the criteria of a run's monitor.

    Returns:
        CollapseCriteria | None: The defaults if its config has no monitor;
        None if the monitor would refuse its settings.
    """
    hooks = [
        *get_mapping(run.cfg, 'default_hooks').values(),
        *(run.cfg.get('custom_hooks') or ()),
    ]
    found: Mapping = next(
        (h for h in hooks if h and str(h.get('type')).endswith(MONITOR)), {}
    )
    names = CollapseCriteria.__dataclass_fields__
    try:
        return CollapseCriteria(**{n: found[n] for n in names if n in found})
    except (TypeError, ValueError):
        return None


def collapse_ranges(run: RunLog, name: str) -> list[tuple[float, float, str]]:
    """Return the ranges of a logged figure that are taken for collapse.

    Returns:
        list[tuple[float, float, str]]: Low end, high end, and what stands
        there, e.g. "ln K = 11.09".
    """
    criteria, prototypes = criteria_of(run), num_prototypes(run)
    weight = loss_weight(run)
    if criteria is None or prototypes is None:
        return []
    top = math.log(prototypes)
    near = criteria.tolerance * top
    if name == 'teacher_entropy':
        # An entropy cannot be above ln K; a loss can, and has a weight.
        return [(top - near, top, f'ln K = {top:.2f}'), (0.0, near, '')]
    if name == 'teacher_student_kl':
        return [(0.0, criteria.min_divergence * top, '')]
    if name == 'loss_dino' and weight > 0:  # not NaN either
        words = 'ln K' if weight == 1 else f'{weight:g} ln K'
        low, high = weight * (top - near), weight * (top + near)
        return [(low, high, f'{words} = {weight * top:.2f}')]
    return []


def num_prototypes(run: RunLog) -> int | None:
    """Return the number K of prototypes, None if the config has none."""
    for name in ('head', 'neck'):
        part = get_mapping(run.cfg, 'model', name)
        number = part.get('num_prototypes')
        if isinstance(number, int) and number > 1:
            return number
    return None


def loss_weight(run: RunLog) -> float:
    """Return the weight of the loss on the last layer, NaN instead of 0."""
    weight = get_mapping(run.cfg, 'model', 'head').get('loss_weight', 1)
    if not isinstance(weight, (int, float)):
        return 1
    return float(weight) or math.nan  # as the hook has it
