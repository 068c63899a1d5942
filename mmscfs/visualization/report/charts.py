# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which charts a report has."""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from mmscfs.results import Line, RunLog, get_mapping

from ..knn_curves import top1_by_layer
from .curves import Curve, make_curve
from .health import Monitor, loss_weight, num_prototypes
from .words import CAPTIONS, SCORES, TITLES, UNITS

HEALTH = (
    'teacher_entropy',
    'teacher_student_kl',
    'feature_std',
    'center_norm',
    'grad_norm',
    'skipped',
)
SCHEDULES = ('lr', 'teacher_temp', 'teacher_momentum')


class Series(NamedTuple):
    """The curve of a run, and what is shaded below it."""

    run: int
    curve: Curve
    below: Curve | None = None


class Chart(NamedTuple):
    """A chart.

    Attributes:
        title (str): What it shows.
        unit (str): Of its values, or "".
        caption (str): How it is read.
        series (list[Series]): A curve of each run that has it.
        axis (str): What is along it, "epoch" or "iteration".
        edges (list[tuple[float, float, str]]): Shaded ranges, with words.
        dots (bool): Mark every value. Defaults to False.
        from_zero (bool): Begin at 0. Defaults to False.
    """

    title: str
    unit: str
    caption: str
    series: list[Series]
    axis: str
    edges: list[tuple[float, float, str]] = []
    dots: bool = False
    from_zero: bool = False


class Plotter:
    """Make charts of runs that have something in common.

    Args:
        runs (Mapping[int, RunLog]): The runs by their number.
        monitors (Mapping[int, Monitor | None]): Their collapse monitors.
    """

    def __init__(
        self,
        runs: Mapping[int, RunLog],
        monitors: Mapping[int, Monitor | None],
    ) -> None:
        self.runs = runs
        self.monitors = monitors
        self.by_epoch = all(r.epoch_length for r in runs.values() if r.train)

    def names(self, pattern: str) -> list[str]:
        """Return the logged names that match, those of all runs."""
        names = dict.fromkeys(
            name
            for run in self.runs.values()
            for line in run.train[:1] + run.train[-1:]
            for name in line
            if re.fullmatch(pattern, name)
        )
        return list(names)

    def plot(self, key: str, **changes: Any) -> Chart | None:
        """Make the chart of what is logged as ``key``; None of nothing."""
        return self.chart(
            lambda run, line: line.get(key, math.nan),
            title=changes.pop('title', TITLES.get(key, key)),
            caption=changes.pop('caption', CAPTIONS.get(key, '')),
            unit=UNITS.get(key, ''),
            **changes,
        )

    def chart(
        self,
        value: Callable[[RunLog, Line], float],
        below: Callable[[RunLog, Line], float] | None = None,
        validated: bool = False,
        **settings: Any,
    ) -> Chart | None:
        """Make a chart of a value of every line; None if no run has it."""
        series = []
        for number, run in self.runs.items():
            lines = run.val if validated else run.train
            points = [(line, value(run, line)) for line in lines]
            points = [p for p in points if p[1] == p[1]]
            if not any(math.isfinite(v) for _, v in points):
                continue
            x = [run.position(line, self.by_epoch) for line, _ in points]
            curve = make_curve(x, [v for _, v in points])
            under = None
            if below is not None:
                under = make_curve(x, [below(run, p) for p, _ in points])
            series.append(Series(number, curve, under))
        if not series:
            return None
        axis = 'epoch' if self.by_epoch else 'iteration'
        return Chart(series=series, axis=axis, dots=validated, **settings)

    def edges(self, key: str) -> list[tuple[float, float, str]]:
        """Return the ranges of a figure that monitors take for collapse."""
        # An entropy cannot be above ln K; a loss can, and has a weight.
        is_loss = key == 'loss_dino'
        tops: dict[tuple[float, float, str], None] = {}
        near_zero: dict[str, list[float]] = {}
        for number, run in self.runs.items():
            monitor, count = self.monitors[number], num_prototypes(run)
            if monitor is None or count is None:
                continue
            top = math.log(count)
            near = monitor.tolerance * top
            weight = loss_weight(run) if is_loss else 1.0
            if weight > 0:  # not NaN either
                words = f'{weight:g} ln K' if weight != 1 else 'ln K'
                words += f' = {weight * top:.2f}'
                tops[weight * top, weight * near, words] = None
            near_zero.setdefault('teacher_entropy', []).append(near)
            near_zero.setdefault('teacher_student_kl', []).append(
                monitor.min_divergence * top
            )
        edges = []
        if key in ('teacher_entropy', 'loss_dino'):
            edges = [
                (top - near, top + near * is_loss, words)
                for top, near, words in tops
            ]
        if highest := max(near_zero.get(key, [0.0])):
            edges.append((0.0, highest, '0'))
        return edges


def scaled(_: RunLog, line: Line, key: str, factor: float) -> float:
    """Return what a line has as ``key``, times a factor."""
    return factor * line.get(key, math.nan)


def best_of(_: RunLog, line: Line, layer: str) -> float:
    """Return the best k-NN accuracy of a layer that a line has."""
    return max(top1_by_layer(line).get(layer, {}).values(), default=math.nan)


def score_charts(plotter: Plotter) -> list[Chart | None]:
    """Return the charts of what validations reached."""
    charts = [
        plotter.chart(
            partial(scaled, key=key, factor=factor),
            title=title,
            unit='%',
            caption=CAPTIONS.get(key, CAPTIONS['accuracy/top1']),
            validated=True,
        )
        for key, (title, factor) in SCORES.items()
    ]
    layers = dict.fromkeys(
        layer
        for run in plotter.runs.values()
        for line in run.val[-1:]
        for layer in top1_by_layer(line)
    )
    for layer in layers if len(layers) > 1 else ():
        charts.append(
            plotter.chart(
                partial(best_of, layer=layer),
                title=f'k-NN accuracy, {layer}',
                unit='%',
                caption=f'The same by the features of {layer}, at the best k.',
                validated=True,
            )
        )
    return charts


def loss_charts(plotter: Plotter) -> list[Chart | None]:
    """Return the charts of the loss and its terms."""
    charts = []
    for name in plotter.names('loss.*'):
        term = re.fullmatch(r'loss_(\w+)_(global|search)', name)
        title = TITLES.get(name, name)
        caption = CAPTIONS.get(name, CAPTIONS['loss_'])
        if name == 'loss' and all(
            run.kind != 'pre-training' for run in plotter.runs.values()
        ):
            caption = CAPTIONS['supervised_loss']
        if term:
            title = f'{term[1]}, {term[2]} term'
            caption = CAPTIONS[term[2]]
        charts.append(
            plotter.plot(
                name, title=title, caption=caption, edges=plotter.edges(name)
            )
        )
    return charts


def health_charts(plotter: Plotter) -> list[Chart | None]:
    """Return the charts that collapse shows in."""
    charts = []
    for name in HEALTH:
        charts.append(
            plotter.plot(
                name, edges=plotter.edges(name), from_zero=name == 'skipped'
            )
        )
    for name in plotter.names(r'\w+_teacher_entropy'):
        layer = name.removesuffix('_teacher_entropy')
        charts.append(
            plotter.plot(
                name,
                title=f'Teacher entropy, {layer}',
                caption=CAPTIONS['layer_entropy'],
            )
        )
    return charts


def schedule_charts(plotter: Plotter) -> list[Chart | None]:
    """Return the charts of what is set by a schedule."""
    charts = [plotter.plot(name) for name in SCHEDULES]
    decays = {
        line['weight_decay']
        for run in plotter.runs.values()
        for line in run.train
        if 'weight_decay' in line
    }
    return charts + [plotter.plot('weight_decay')] * (len(decays) > 1)


def speed_charts(plotter: Plotter) -> list[Chart | None]:
    """Return the charts of time and memory."""

    def images(run: RunLog, line: Line) -> float:
        loader = get_mapping(run.cfg, 'train_dataloader')
        size, time = loader.get('batch_size'), line.get('time', 0)
        if not isinstance(size, int) or not time > 0:
            return math.nan
        return size * run.world_sizes[int(line['start'])] / time

    return [
        plotter.plot(
            'time',
            below=lambda run, line: line.get('data_time', math.nan),
            from_zero=True,
        ),
        plotter.chart(
            images,
            title='Images a second',
            unit='',
            caption=CAPTIONS['images'],
            from_zero=True,
        ),
        plotter.plot('memory', from_zero=True),
    ]


# Of the page, with their headings.
SECTIONS: Mapping[str, tuple[str, Callable]] = {
    'scores': ('Scores on the way', score_charts),
    'loss': ('Loss', loss_charts),
    'health': ('Health', health_charts),
    'schedules': ('Schedules', schedule_charts),
    'speed': ('Speed', speed_charts),
}
