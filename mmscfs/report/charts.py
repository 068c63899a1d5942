# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The charts of a report; ``charts.csv`` says which, and how they are read."""

import csv
import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from mmscfs.results import Line, RunLog, get_mapping

from .verdict import criteria_of, loss_weight, num_prototypes

POINTS = 500  # of a curve; more cannot be told apart on a screen
DOTS = 40  # validations; the dots of more would touch
LONGEST = 28  # characters of a name beside the pointer
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
# The range that is taken for collapse may be thinner than a pixel.
EDGE = dict(
    fillcolor='rgba(214, 90, 30, 0.3)',
    line=dict(color='rgb(214, 90, 30)', width=1.5),
    annotation_font_color='rgb(214, 90, 30)',
    annotation_position='outside bottom right',
)
NOTHING = 'rgba(0, 0, 0, 0)'
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif'
AXIS = dict(automargin=True, zeroline=False, nticks=6)
LAYOUT = dict(
    template='none',
    height=240,
    margin=dict(l=8, r=8, t=8, b=8),
    paper_bgcolor=NOTHING,
    plot_bgcolor=NOTHING,
    font=dict(family=FONT, size=12),
    hovermode='x unified',
    hoverlabel=dict(namelength=-1, font_family=FONT),
    showlegend=False,
    xaxis=dict(AXIS, showgrid=False),
    # Ticks that cannot be seen, as a distance of the labels.
    yaxis=dict(
        AXIS,
        gridcolor='rgba(128, 128, 128, 0.25)',
        ticks='outside',
        tickcolor=NOTHING,
    ),
)


class Kind(NamedTuple):
    """A kind of chart: a row of ``charts.csv``, as text.

    Attributes:
        section (str): Heading that it stands under.
        names (str): Regular expression of the logged names that it shows. A
            name belongs to the first kind that it matches.
        title (str): What it shows; "{}" is what the expression captures.
        unit (str): Of its values, or "".
        scale (str): Factor of the logged values.
        from_zero (str): "yes" if the axis starts at 0.
        caption (str): How it is read.
    """

    section: str
    names: str
    title: str
    unit: str
    scale: str
    from_zero: str
    caption: str


_, *ROWS = csv.reader(
    Path(__file__).with_name('charts.csv').read_text('utf-8').splitlines()
)
KINDS = tuple(Kind(*row) for row in ROWS)
SECTIONS = tuple(dict.fromkeys(kind.section for kind in KINDS))


class Curve(NamedTuple):
    """A curve of at most ``POINTS`` points.

    Attributes:
        x (np.ndarray): Positions, rising.
        y (np.ndarray): Values; the mean where a point stands for several.
        low (np.ndarray): The least of them.
        high (np.ndarray): The largest of them.
        per_point (int): How many logged values a point stands for.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_point: int


class Chart(NamedTuple):
    """A chart. The traces of a run have its number as ``legendgroup``."""

    kind: Kind
    title: str
    caption: str
    latest: str
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
    charts: list[Chart] = []
    taken: set[str] = set()
    for kind in KINDS:
        tables = validated if kind.section == 'Scores' else trained
        found: dict[str, list[str]] = {}
        for name in dict.fromkeys(n for t in tables.values() for n in t):
            match = re.fullmatch(kind.names, name)
            if match and name not in taken:
                title = kind.title.format(*match.groups())
                found.setdefault(title, []).append(name)
                taken.add(name)
        if kind.title == 'k-NN accuracy, {}' and len(found) == 1:
            continue  # the layer whose accuracy is above
        for title, shown in found.items():
            figure = go.Figure(layout=LAYOUT)
            curves = []
            edges: dict[tuple[float, float], str] = {}
            for number, table in tables.items():
                values = [table[name] for name in shown if name in table]
                best = float(kind.scale) * np.fmax.reduce(
                    values or [np.empty(0)]
                )
                if np.isfinite(best).any():
                    name = names[number]
                    curves.append(
                        _draw(figure, number, name, kind, table, best)
                    )
                    for edge in collapse_edges(runs[number], shown[0]):
                        edges[edge[:2]] = edge[2]
            for (bottom, top), words in edges.items():
                figure.add_hrect(bottom, top, **EDGE, annotation_text=words)
            if curves:
                charts.append(_chart(figure, kind, title, axis, curves))
    return charts


def _columns(
    run: RunLog, lines: Sequence[Line], by_epoch: bool
) -> dict[str, np.ndarray]:
    """Return what lines have by name, NaN where one lacks it, and ``x``."""
    table = {
        name: np.array([line.get(name, math.nan) for line in lines])
        for name in dict.fromkeys(name for line in lines for name in line)
    }
    table['x'] = np.array([run.position(line, by_epoch) for line in lines])
    size = get_mapping(run.cfg, 'train_dataloader').get('batch_size')
    if isinstance(size, int) and 'time' in table:
        sizes = np.array([start.world_size for start in run.starts])
        images = size * sizes[table['start'].astype(int)]
        time = np.where(table['time'] > 0, table['time'], math.nan)
        table['images_per_second'] = images / time
    decay = table.get('weight_decay', np.zeros(1))
    if np.all(decay == decay[0]):  # then the settings have it
        table.pop('weight_decay', None)
    return table


def thin(x: np.ndarray, y: np.ndarray) -> Curve:
    """Make a curve; neighboring values share a point if there are too many.

    Values that are not finite are left out of the means, or are gaps.
    """
    size = -(-len(x) // POINTS)
    rest = [math.nan] * (-len(x) % size)
    x, y = (np.append(v, rest).reshape(-1, size) for v in (x, y))
    x, y = np.ma.masked_invalid(x), np.ma.masked_invalid(y)
    found = x.mean(1), y.mean(1), y.min(1), y.max(1)
    middle, mean, low, high = (v.filled(math.nan) for v in found)
    return Curve(middle, mean, low, high, size)


def style_of(number: int) -> tuple[str, str]:
    """Return a run's color, as "red, green, blue", and its dashes.

    The first 21 runs differ in one of them.
    """
    return COLORS[number % len(COLORS)], [*DASHES][number % len(DASHES)]


def _draw(
    figure: go.Figure,
    number: int,
    name: str,
    kind: Kind,
    table: Mapping[str, np.ndarray],
    values: np.ndarray,
) -> Curve:
    """Draw a run into a figure; return its curve."""
    known = ~np.isnan(values)
    x = table['x'][known]
    curve = thin(x, values[known])
    color, dash = style_of(number)
    solid, pale = f'rgb({color})', f'rgba({color}, 0.22)'
    if len(name) > LONGEST:
        name = f'{name[: LONGEST - 1]}…'
    # Plotly shows some tags in a name, so it gets none.
    name = html.escape(name, quote=False)
    run = dict(x=curve.x, legendgroup=str(number))
    plain = dict(run, mode='lines', line=dict(width=0, color=solid))
    if curve.per_point > 1:
        figure.add_scatter(y=curve.low, hoverinfo='skip', **plain)
        figure.add_scatter(
            y=curve.high,
            fill='tonexty',
            fillcolor=pale,
            hoverinfo='skip',
            **plain,
        )
    if kind.names == 'time' and 'data_time' in table:
        figure.add_scatter(
            y=thin(x, table['data_time'][known]).y,
            name=f'{name}, waiting for data',
            fill='tozeroy',
            fillcolor=pale,
            hovertemplate='%{y:.4~g}',
            **plain,
        )
    few = kind.section == 'Scores' and len(curve.x) <= DOTS
    dots = few or np.isfinite(curve.y).sum() == 1
    figure.add_scatter(
        y=curve.y,
        name=name,
        mode='lines+markers' if dots else 'lines',
        line=dict(color=solid, dash=dash, width=2),
        hovertemplate='%{y:.5~g}',
        **run,
    )
    resumed = x[1:][np.diff(table['start'][known]) > 0]
    if len(resumed):
        run['x'] = resumed
        figure.add_scatter(
            y=np.interp(resumed, curve.x, curve.y),
            mode='markers',
            marker=dict(symbol='diamond-open', size=9, color=solid),
            hoverinfo='skip',
            **run,
        )
    return curve


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


def _chart(
    figure: go.Figure,
    kind: Kind,
    title: str,
    axis: str,
    curves: Sequence[Curve],
) -> Chart:
    """Set the axes of what is drawn, and say what it is."""
    figure.update_xaxes(
        title=axis, unifiedhovertitle_text=f'{axis} %{{x:.6~g}}'
    )
    places = {float(x) for curve in curves for x in curve.x}
    if len(places) == 1:
        figure.update_xaxes(tickvals=list(places))
    if kind.from_zero or any(shape.y0 == 0 for shape in figure.layout.shapes):
        figure.update_yaxes(rangemode='tozero')
    caption, latest = kind.caption, ''
    most = max(curve.per_point for curve in curves)
    if most > 1:
        caption += (
            f' Points are means of {most} logged values, the shade behind '
            'them is their range.'
        )
    if len(curves) == 1:
        last = curves[0].y[np.isfinite(curves[0].y)][-1]
        latest = f'{last:.4g} {kind.unit}'.strip()
    return Chart(kind, title, caption, latest, figure)
