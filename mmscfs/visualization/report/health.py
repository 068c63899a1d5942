# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Say in words whether a run is learning, as its collapse monitor would."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from mmscfs.results import Line, RunLog, get_mapping

MONITOR = 'CollapseMonitorHook'


class Monitor(Protocol):
    """What a report asks of ``CollapseMonitorHook``, which it does not
    import: the engine draws with this package.
    """

    begin: int
    window: int
    tolerance: float
    min_divergence: float

    def diagnose(
        self, teacher_entropy: float, loss: float, num_prototypes: int
    ) -> str | None:
        """Say what is wrong, or return None."""


class Verdict(NamedTuple):
    """What there is to say of a run.

    Attributes:
        word (str): "learning", "in doubt", "not learning yet", "too early",
            "collapsed", "diverged" or "not judged".
        reason (str): Why, a sentence.
    """

    word: str
    reason: str


def monitor_of(
    run: RunLog, make_monitor: Callable[..., Monitor]
) -> Monitor | None:
    """Return the monitor of a run's config.

    Returns:
        Monitor | None: With the hook's defaults if the run had none; None if
        the config's settings are not the hook's.
    """
    hooks = run.cfg.get('default_hooks')
    found = list(hooks.values()) if isinstance(hooks, Mapping) else []
    custom = run.cfg.get('custom_hooks')
    found += custom if isinstance(custom, list) else []
    for hook in found:
        if (
            isinstance(hook, Mapping)
            and str(hook.get('type')).split('.')[-1] == MONITOR
        ):
            names = ('begin', 'window', 'tolerance', 'min_divergence', 'stop')
            settings = {n: hook[n] for n in names if n in hook}
            try:
                return make_monitor(**settings)
            except (TypeError, ValueError):
                return None
    return make_monitor()


def num_prototypes(run: RunLog) -> int | None:
    """Return the number K of prototypes, None if the config has none."""
    model = run.cfg.get('model')
    for name in ('head', 'neck'):
        part = model.get(name) if isinstance(model, Mapping) else None
        number = part.get('num_prototypes') if isinstance(part, Mapping) else 0
        if isinstance(number, int) and number > 1:
            return number
    return None


def judge(run: RunLog, monitor: Monitor | None) -> Verdict:
    """Say whether a run is learning.

    Means over the monitor's windows are compared, of the lines logged in
    them: the hook has every iteration, so that it may differ at the edge.
    """
    if not run.train:
        return Verdict('not judged', 'Nothing is logged of a training.')
    last = run.train[-1]
    if not math.isfinite(last.get('loss', 0.0)):
        return Verdict(
            'diverged',
            f'The loss is not finite at iteration {last["at"]:.0f}. Lower '
            'the learning rate, or turn mixed precision off.',
        )
    if run.kind != 'pre-training':
        return Verdict(
            'not judged',
            'Collapse is a matter of pre-training; its loss and scores tell.',
        )
    if not any('teacher_entropy' in line for line in run.train):
        return Verdict(
            'not judged',
            'It logs no teacher entropy, which collapse is told by; see its '
            'loss and its scores.',
        )
    prototypes = num_prototypes(run)
    if prototypes is None or monitor is None:
        return Verdict(
            'not judged',
            'Its config names no model.neck.num_prototypes.'
            if prototypes is None
            else f'Its config has settings that {MONITOR} does not take.',
        )
    weight = loss_weight(run)
    recent = [v for v in run.train if v['at'] > last['at'] - monitor.window]
    entropy, loss = means(recent, weight)
    if math.isnan(entropy):
        return _no_figures(run, monitor, weight)
    first = monitor.begin + monitor.window
    top = math.log(prototypes)
    figures = (
        f'teacher entropy {entropy:.3g} of at most {top:.3g}, loss on the '
        f'last layer {loss:.3g}'
    )
    finding = monitor.diagnose(entropy, loss, prototypes)
    if finding and last['at'] >= first:
        return Verdict('collapsed', f'{finding[0].upper()}{finding[1:]}.')
    if (finding or loss >= top) and last['at'] < first:
        return Verdict(
            'too early',
            f'T{figures[1:]}, as in many a young run, and in one too short '
            f'for its data. The monitor looks from iteration {first} on.',
        )
    if loss >= top:
        return Verdict(
            'not learning yet',
            f'T{figures[1:]}, which is more than of a guess (ln K = '
            f'{top:.3g}).',
        )
    warned = first_finding(run, monitor, prototypes, weight)
    if warned is not None:
        return Verdict(
            'learning',
            f'Again, after signs of collapse at iteration {warned}: '
            f'{figures}.',
        )
    scores = [line['knn/top1'] for line in run.val if 'knn/top1' in line]
    if len(scores) > 1 and scores[-1] <= scores[0]:
        return Verdict(
            'in doubt',
            f'No sign of collapse, but k-NN accuracy has not risen: '
            f'{scores[0]:.3g} % at first, {scores[-1]:.3g} % now.',
        )
    return Verdict('learning', f'No sign of collapse: {figures}.')


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
    run: RunLog, monitor: Monitor, prototypes: int, weight: float
) -> int | None:
    """Return the iteration at which the monitor would have warned."""
    windows: dict[int, list[Line]] = {}
    for line in run.train:
        number = math.ceil(line['at'] / monitor.window)
        windows.setdefault(number, []).append(line)
    for number, lines in windows.items():
        end = number * monitor.window
        if monitor.begin + monitor.window <= end <= run.train[-1]['at']:
            found = monitor.diagnose(*means(lines, weight), prototypes)
            if found:
                return end
    return None


def _no_figures(run: RunLog, monitor: Monitor, weight: float) -> Verdict:
    """Say why there are no means of a run's last window."""
    end = run.train[-1]['at']
    figures = [
        line['loss_dino']
        for line in run.train
        if line['at'] > end - monitor.window and 'loss_dino' in line
    ]
    if figures and not any(map(math.isfinite, figures)):
        return Verdict(
            'diverged',
            f'The loss on the last layer is not finite in any line up to '
            f'iteration {end:.0f}. Lower the learning rate, or turn mixed '
            'precision off.',
        )
    missing = 'no loss on the last layer beside a finite teacher entropy'
    if math.isnan(weight):
        missing = 'no loss on the last layer: model.head.loss_weight is 0'
    return Verdict(
        'not judged',
        f'The lines of its last {monitor.window} iterations have {missing}.',
    )


def loss_weight(run: RunLog) -> float:
    """Return the weight of the loss on the last layer, NaN instead of 0."""
    weight = get_mapping(run.cfg, 'model', 'head').get('loss_weight', 1)
    if not isinstance(weight, (int, float)):
        return 1
    return float(weight) or math.nan  # as the hook has it
