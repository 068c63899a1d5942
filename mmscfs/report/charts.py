# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The charts of a report: what each shows, how it is read, and its figure."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from mmscfs.results import Line, RunLog, get_mapping

from .verdict import criteria_of, loss_weight, num_prototypes

POINTS = 500  # of a curve; more cannot be told apart on a screen
LONGEST = 28  # characters of a name beside the pointer
DOTS = 40  # validations; the dots of more would touch
# Mid tones, which stand out from a light and from a dark ground.
COLORS = (
    '31, 125, 214',
    '222, 97, 20',
    '18, 150, 110',
    '190, 83, 168',
    '150, 120, 20',
    '120, 105, 225',
    '215, 70, 85',
)
DASHES = {'solid': 'solid', 'dash': 'dashed', 'dot': 'dotted'}  # plotly, CSS
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif'
EDGE = '214, 90, 30'
LAYOUT = dict(
    template='none',
    height=240,
    margin=dict(l=8, r=8, t=8, b=8),
    paper_bgcolor='rgba(0, 0, 0, 0)',
    plot_bgcolor='rgba(0, 0, 0, 0)',
    font=dict(family=FONT, size=12),
    hovermode='x unified',
    hoverlabel=dict(namelength=-1, font_family=FONT),
    showlegend=False,
)
X_AXIS = dict(automargin=True, showgrid=False, zeroline=False, nticks=6)
Y_AXIS = dict(
    automargin=True,
    gridcolor='rgba(128, 128, 128, 0.25)',
    zeroline=False,
    nticks=5,
    ticks='outside',  # as a distance between labels and curves
    tickcolor='rgba(0, 0, 0, 0)',
)


class Kind(NamedTuple):
    """A kind of chart.

    Attributes:
        section (str): Heading that it stands under.
        names (str): Regular expression of the logged names that it shows.
        title (str): What it shows; "{}" is what the expression captures.
        caption (str): How it is read.
        unit (str): Of its values, or "".
        scale (float): Factor of the logged values.
        shade (str): Logged name of the part that is shaded, or "".
        from_zero (bool): The axis starts at 0.
        least (int): Charts of the kind without which none is shown.
    """

    section: str
    names: str
    title: str
    caption: str
    unit: str = ''
    scale: float = 1.0
    shade: str = ''
    from_zero: bool = False
    least: int = 1


FALLING = 'Healthy: a fast fall, then a slow one.'
RISING = 'On the validation data. Healthy: rising, then level.'
SCORES = (
    Kind(
        'Scores',
        'knn/top1',
        'k-NN accuracy',
        'Validation images whose class is that of most of their nearest '
        'training images, by the features alone. Healthy: above chance from '
        'the first epochs on, then rising ever more slowly.',
        '%',
    ),
    Kind('Scores', 'linear/top1|accuracy/top1', 'Top-1 accuracy', RISING, '%'),
    Kind(
        'Scores',
        'single-label/recall',
        'Accuracy, mean of classes',
        RISING,
        '%',
    ),
    Kind('Scores', 'svm/mAP', 'mAP of the classifiers', RISING, '%'),
    Kind('Scores', 'coco/bbox_mAP', 'Box AP', RISING, '%', 100),
    Kind('Scores', 'coco/segm_mAP', 'Mask AP', RISING, '%', 100),
    Kind('Scores', 'pascal_voc/mAP', 'Box AP, VOC', RISING, '%', 100),
    Kind('Scores', 'pascal_voc/AP50', 'Box AP50, VOC', RISING, '%', 100),
)
KINDS = SCORES + (
    Kind(
        'Scores',
        r'knn/(.+)_k\d+_top1',
        'k-NN accuracy, {}',
        'By the features of this layer, at the best k.',
        '%',
        least=2,
    ),
    Kind(
        'Loss',
        'loss',
        'Total loss',
        f'The sum of all terms. {FALLING} In pre-training the targets move '
        'with the teacher, so a level loss can hide learning: see the scores.',
    ),
    Kind(
        'Loss',
        'loss_dino',
        'Loss, last layer',
        'Cross-entropy of teacher and student on the last layer, times its '
        'weight. It starts near the shaded edge and must leave it.',
        'nats',
    ),
    Kind(
        'Loss',
        r'loss_(\w+)_global',
        '{}, global term',
        'Global views of an image against each other, on this layer.',
    ),
    Kind(
        'Loss',
        r'loss_(\w+)_search',
        '{}, search term',
        'Local views against what the search found for them in the global '
        'map. Healthy: falling, and below the global term of the layer.',
    ),
    Kind('Loss', '(loss.*)', '{}', f'A term of the loss. {FALLING}'),
    Kind(
        'Health',
        'teacher_entropy',
        'Teacher entropy',
        'How many prototypes the teacher spreads an image over. Healthy: '
        'between the shaded edges, falling slowly. At 0 all images share one '
        'prototype, at ln K all prototypes are alike; both are collapse.',
        'nats',
    ),
    Kind(
        'Health',
        'teacher_student_kl',
        'KL, teacher to student',
        'How far the student is from the teacher. Healthy: falling at first, '
        'then level or rising, well above the shaded edge, where nothing is '
        'left to predict.',
        'nats',
    ),
    Kind(
        'Health',
        'feature_std',
        'Spread of features',
        'How much the features of images differ: 1 if they spread evenly. '
        'Healthy: level or rising. Near 0 all images look alike.',
    ),
    Kind(
        'Health',
        'center_norm',
        'Norm of the center',
        'Length of the center that is subtracted from the teacher’s outputs. '
        'Healthy: moving early, then level. Endless growth means drift.',
    ),
    Kind(
        'Health',
        'grad_norm',
        'Norm of the gradient',
        'Healthy: level. Peaks come before a loss that diverges.',
    ),
    Kind(
        'Health',
        'skipped',
        'Skipped steps',
        'Share of steps that were left out because their loss or gradient '
        'was not finite. Healthy: 0; with fp16 a few now and then. A run '
        'stops after 20 in a row.',
        from_zero=True,
    ),
    Kind(
        'Health',
        r'(\w+)_teacher_entropy',
        'Teacher entropy, {}',
        'The same on a search layer, over its own outputs.',
        'nats',
    ),
    Kind(
        'Schedules',
        'lr',
        'Learning rate',
        'As the config schedules it.',
        from_zero=True,
    ),
    Kind(
        'Schedules',
        'teacher_temp',
        'Teacher temperature',
        'Lower is sharper. It rises while the prototypes settle: a soft '
        'teacher collapses early, a sharp one stays coarse.',
    ),
    Kind(
        'Schedules',
        'teacher_momentum',
        'Teacher momentum',
        'Share of itself that the teacher keeps in a step. It comes to rest '
        'as the value nears 1.',
    ),
    Kind(
        'Schedules',
        'weight_decay',
        'Weight decay',
        'As the config schedules it.',
    ),
    Kind(
        'Speed',
        'time',
        'Time of a step',
        'The line is a whole step, the shaded part the wait for data. '
        'Healthy: near no wait; otherwise add workers or faster storage.',
        's',
        shade='data_time',
        from_zero=True,
    ),
    Kind(
        'Speed',
        'images_per_second',
        'Images per second',
        'Of all processes. Healthy: level.',
        from_zero=True,
    ),
    Kind(
        'Speed',
        'memory',
        'Memory',
        'The most that the device of one process has held.',
        'MiB',
        from_zero=True,
    ),
)
SECTIONS = tuple(dict.fromkeys(kind.section for kind in KINDS))


class Curve(NamedTuple):
    """A curve of at most ``POINTS`` points.

    Attributes:
        x (np.ndarray): Positions, rising.
        y (np.ndarray): Values; the mean where a point stands for several.
        low (np.ndarray): The least of them.
        high (np.ndarray): The largest of them.
        per_point (int): How many logged values a point stands for.
        shade (np.ndarray | None): The shaded part of ``y``.
        resumed (np.ndarray): Positions at which a later start begins.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_point: int
    shade: np.ndarray | None = None
    resumed: np.ndarray = np.empty(0)


class Chart(NamedTuple):
    """A chart: a kind with its title, the curves of runs, and their figure."""

    kind: Kind
    title: str
    caption: str
    latest: str
    curves: dict[int, Curve]
    figure: go.Figure


def make_charts(
    runs: Mapping[int, RunLog], names: Sequence[str]
) -> list[Chart]:
    """Make the charts of runs that share their axes.

    Args:
        runs (Mapping[int, RunLog]): The runs by their number on the page,
            which gives their color.
        names (Sequence[str]): What the page calls its runs.
    """
    by_epoch = all(run.epoch_length for run in runs.values() if run.train)
    axis = 'epoch' if by_epoch else 'iteration'
    trained = {i: _columns(r, r.train, by_epoch) for i, r in runs.items()}
    validated = {i: _columns(r, r.val, by_epoch) for i, r in runs.items()}
    charts, taken = [], set()
    for kind in KINDS:
        tables = validated if kind.section == 'Scores' else trained
        logged = dict.fromkeys(n for t in tables.values() for n in t)
        found: dict[str, list[str]] = {}
        for name in logged:
            match = re.fullmatch(kind.names, name)
            if match and name not in taken:
                title = kind.title.format(*match.groups())
                found.setdefault(title, []).append(name)
                taken.add(name)
        for title, shown in found.items() if len(found) >= kind.least else ():
            curves = {}
            for number, table in tables.items():
                curve = _curve(table, shown, kind)
                if curve is not None:
                    curves[number] = curve
            if curves:
                edges = dict.fromkeys(
                    edge
                    for number in curves
                    for edge in collapse_edges(runs[number], shown[0])
                )
                figure = draw(kind, axis, curves, names, list(edges))
                charts.append(_chart(kind, title, curves, figure))
    return charts


def _columns(
    run: RunLog, lines: Sequence[Line], by_epoch: bool
) -> dict[str, np.ndarray]:
    """Return what lines have by name, NaN where one lacks it, and ``x``."""
    names = dict.fromkeys(name for line in lines for name in line)
    table = {
        name: np.array([line.get(name, math.nan) for line in lines])
        for name in names
    }
    table['x'] = np.array([run.position(line, by_epoch) for line in lines])
    size = get_mapping(run.cfg, 'train_dataloader').get('batch_size')
    if isinstance(size, int) and lines and 'time' in table:
        images = size * np.array(run.world_sizes)[table['start'].astype(int)]
        time = np.where(table['time'] > 0, table['time'], math.nan)
        table['images_per_second'] = images / time
    decay = table.get('weight_decay', np.zeros(1))
    if np.all(decay == decay[0]):  # as a setting, it is in the settings
        table.pop('weight_decay', None)
    return table


def _curve(
    table: Mapping[str, np.ndarray], names: Sequence[str], kind: Kind
) -> Curve | None:
    """Return the curve of the best of logged names; None of none."""
    columns = [table[name] for name in names if name in table]
    if not columns:
        return None
    values = kind.scale * np.fmax.reduce(columns)
    known = ~np.isnan(values)
    if not np.isfinite(values[known]).any():
        return None
    x, values = table['x'][known], values[known]
    curve = thin(x, values)
    later = x[1:][np.diff(table['start'][known]) > 0]
    curve = curve._replace(resumed=later)
    if kind.shade in table:
        shade = thin(x, table[kind.shade][known]).y
        curve = curve._replace(shade=shade)
    return curve


def thin(x: np.ndarray, y: np.ndarray) -> Curve:
    """Make a curve; neighboring values share a point if there are too many.

    Values that are not finite are left out of the means, or are gaps.
    """
    size = -(-len(x) // POINTS)
    firsts = np.arange(0, len(x), size)
    y = np.where(np.isfinite(y), y, math.nan)
    counts = np.add.reduceat(~np.isnan(y), firsts, dtype=int)
    sums = np.add.reduceat(np.nan_to_num(y), firsts)
    sizes = np.diff(firsts, append=len(x))
    return Curve(
        np.add.reduceat(x, firsts) / sizes,
        np.where(counts > 0, sums / np.maximum(counts, 1), math.nan),
        np.fmin.reduceat(y, firsts),
        np.fmax.reduceat(y, firsts),
        size,
    )


def collapse_edges(run: RunLog, name: str) -> list[tuple[float, float, str]]:
    """Return the ranges of a figure that its monitor takes for collapse."""
    criteria, prototypes = criteria_of(run), num_prototypes(run)
    if criteria is None or prototypes is None:
        return []
    top = math.log(prototypes)
    near = criteria.tolerance * top
    if name == 'teacher_entropy':
        # An entropy cannot be above ln K; a loss can, and has a weight.
        return [(top - near, top, f'ln K = {top:.2f}'), (0.0, near, '')]
    if name == 'teacher_student_kl':
        return [(0.0, criteria.min_divergence * top, '')]
    weight = loss_weight(run)
    if name == 'loss_dino' and weight > 0:  # not NaN either
        words = f'{weight:g} ln K' if weight != 1 else 'ln K'
        words += f' = {weight * top:.2f}'
        return [(weight * (top - near), weight * (top + near), words)]
    return []


def style_of(number: int) -> tuple[str, str]:
    """Return a run's color, as "red, green, blue", and its dashes.

    The first 21 runs differ in one of them.
    """
    return COLORS[number % len(COLORS)], [*DASHES][number % len(DASHES)]


def draw(
    kind: Kind,
    axis: str,
    curves: Mapping[int, Curve],
    names: Sequence[str],
    edges: Sequence[tuple[float, float, str]],
) -> go.Figure:
    """Return a figure; the traces of a run have its number as their group."""
    figure = go.Figure(layout=LAYOUT)
    figure.update_xaxes(
        **X_AXIS,
        title=axis,
        unifiedhovertitle_text=f'{axis} %{{x:.6~g}}',
    )
    places = {x for curve in curves.values() for x in curve.x}
    if len(places) == 1:
        figure.update_xaxes(tickvals=list(places))
    zero = kind.from_zero or any(bottom == 0 for bottom, _, _ in edges)
    figure.update_yaxes(**Y_AXIS, rangemode='tozero' if zero else 'normal')
    for number, curve in curves.items():
        color, dash = style_of(number)
        name = names[number]
        if len(name) > LONGEST:
            name = f'{name[: LONGEST - 1]}…'
        # Plotly shows some tags in a name, so it gets none.
        name = html.escape(name, quote=False)
        run = dict(x=curve.x, legendgroup=str(number))
        pale = f'rgba({color}, 0.22)'
        quiet = dict(line_width=0, mode='lines', hoverinfo='skip')
        if curve.per_point > 1:
            figure.add_scatter(y=curve.low, **run, **quiet)
            figure.add_scatter(
                y=curve.high, fill='tonexty', fillcolor=pale, **run, **quiet
            )
        if curve.shade is not None:
            figure.add_scatter(
                y=curve.shade,
                fill='tozeroy',
                fillcolor=pale,
                name=f'{name}, waiting for data',
                mode='lines',
                line=dict(width=0, color=f'rgb({color})'),
                hovertemplate='%{y:.4~g}',
                **run,
            )
        few = kind.section == 'Scores' and len(curve.x) <= DOTS
        dots = few or np.isfinite(curve.y).sum() == 1
        figure.add_scatter(
            y=curve.y,
            name=name,
            mode='lines+markers' if dots else 'lines',
            line=dict(color=f'rgb({color})', dash=dash, width=2),
            marker=dict(size=6),
            hovertemplate='%{y:.5~g}',
            **run,
        )
        if len(curve.resumed):
            figure.add_scatter(
                x=curve.resumed,
                y=np.interp(curve.resumed, curve.x, curve.y),
                mode='markers',
                marker=dict(
                    symbol='diamond-open', size=9, color=f'rgb({color})'
                ),
                hoverinfo='skip',
                legendgroup=str(number),
            )
    for bottom, top, words in edges:
        figure.add_hrect(
            bottom, top, fillcolor=f'rgba({EDGE}, 0.3)', line_width=0
        )
        # The range alone may be thinner than a pixel.
        figure.add_hline(
            (bottom + top) / 2 if bottom else 0,
            line=dict(color=f'rgb({EDGE})', width=1.5),
            annotation=dict(text=words, font_color=f'rgb({EDGE})'),
            annotation_position='bottom right',
        )
    return figure


def _chart(
    kind: Kind, title: str, curves: dict[int, Curve], figure: go.Figure
) -> Chart:
    caption, latest = kind.caption, ''
    most = max(curve.per_point for curve in curves.values())
    if most > 1:
        caption += (
            f' Points are means of {most} logged values, the shade behind '
            'them is their range.'
        )
    if len(curves) == 1:
        (curve,) = curves.values()
        last = curve.y[np.isfinite(curve.y)][-1]
        latest = f'{last:.4g} {kind.unit}'.strip()
    return Chart(kind, title, caption, latest, curves, figure)
