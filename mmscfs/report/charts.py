# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The charts of a report; ``charts.csv`` says which, and how they are read."""

import csv
import html
import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from mmscfs.results import Line, RunLog, get_mapping

from .verdict import collapse_ranges

POINTS = 500  # of a curve; more cannot be told apart on a screen
DOTS = 40  # validations; the dots of more would touch
# Mid tones, which stand out from a light and from a dark ground.
COLORS = (
    'rgb(31, 125, 214)',
    'rgb(222, 97, 20)',
    'rgb(18, 150, 110)',
    'rgb(190, 83, 168)',
    'rgb(150, 120, 20)',
    'rgb(120, 105, 225)',
    'rgb(215, 70, 85)',
)
DASHES = {'solid': 'solid', 'dash': 'dashed', 'dot': 'dotted'}  # plotly, CSS
# The range that is taken for collapse may be thinner than a pixel.
RANGE = dict(
    fillcolor='rgba(214, 90, 30, 0.3)',
    line=dict(color='rgb(214, 90, 30)', width=1.5),
    annotation_font_color='rgb(214, 90, 30)',
    annotation_position='outside bottom right',
)
AXIS = dict(automargin=True, zeroline=False, nticks=6)
GRID = dict(AXIS, gridcolor='rgba(128, 128, 128, 0.25)')
LAYOUT = dict(
    template='none',
    height=240,
    margin=dict(l=8, r=8, t=8, b=8),
    paper_bgcolor='rgba(0, 0, 0, 0)',
    plot_bgcolor='rgba(0, 0, 0, 0)',
    font=dict(family='system-ui, "Segoe UI", Roboto, Arial, sans-serif'),
    hovermode='x unified',
    hoverlabel=dict(namelength=28),
    showlegend=False,
    xaxis=dict(AXIS, showgrid=False),
    yaxis=GRID,
)


class Kind(NamedTuple):
    """A kind of chart: a row of ``charts.csv``, as text."""

    section: str  #: Heading that it stands under.
    #: Regular expression of the logged names that it shows. A name belongs to
    #: the first kind that it matches.
    names: str
    title: str  #: What it shows; "{}" is what the expression captures.
    unit: str  #: Of its values, or "".
    scale: str  #: Factor of the logged values.
    from_zero: str  #: "yes" if the axis starts at 0.
    caption: str  #: How it is read.


_, *ROWS = csv.reader(
    Path(__file__).with_name('charts.csv').read_text('utf-8').splitlines()
)
KINDS = tuple(Kind(*row) for row in ROWS)
SECTIONS = tuple(dict.fromkeys(kind.section for kind in KINDS))


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

    The runs are given by their number on the page, which gives their color;
    ``names`` are those of all on it.
    """
    by_epoch = all(run.epoch_length for run in runs.values() if run.train)
    tables = {
        is_score: {
            i: _columns(run, run.val if is_score else run.train, by_epoch)
            for i, run in runs.items()
        }
        for is_score in (True, False)
    }
    charts: list[Chart] = []
    taken: set[str] = set()
    for kind in KINDS:
        found: dict[str, list[str]] = {}
        columns = tables[kind.section == 'Scores']
        for name in dict.fromkeys(n for t in columns.values() for n in t):
            match = re.fullmatch(kind.names, name)
            if match and name not in taken:
                taken.add(name)
                title = kind.title.format(*match.groups())
                found.setdefault(title, []).append(name)
        for title, shown in found.items():
            # Of several, as of k-NN, the best.
            values = {
                i: float(kind.scale)
                * np.fmax.reduce([table[n] for n in shown if n in table])
                for i, table in columns.items()
                if any(n in table for n in shown)
            }
            values = {i: v for i, v in values.items() if np.isfinite(v).any()}
            if values:
                chart = Chart(kind, title, kind.caption, '', go.Figure())
                chart.figure.update_layout(LAYOUT)
                ranges = (collapse_ranges(runs[i], shown[0]) for i in values)
                for low, high, words in {*chain.from_iterable(ranges)}:
                    chart.figure.add_hrect(
                        low, high, **RANGE, annotation_text=words
                    )
                axis = 'epoch' if by_epoch else 'iteration'
                charts.append(_draw(chart, axis, columns, values, names))
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
    return table


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Make at most ``POINTS`` points; neighbors share one as their mean.

    Values that are not finite are left out of the means, or are gaps.

    Returns:
        tuple[np.ndarray, np.ndarray, int]: Positions, values, and how many
        of the given values a point stands for.
    """
    size = -(-len(x) // POINTS)
    rest = [math.nan] * (-len(x) % size)
    x, y = (np.append(v, rest).reshape(-1, size) for v in (x, y))
    x, y = (np.ma.masked_invalid(v).mean(1).filled(math.nan) for v in (x, y))
    return x, y, size


def style_of(number: int) -> tuple[str, str]:
    """Return a run's color and dashes; the first 21 runs differ in one."""
    return COLORS[number % len(COLORS)], [*DASHES][number % len(DASHES)]


def _draw(
    chart: Chart,
    axis: str,
    tables: Mapping[int, Mapping[str, np.ndarray]],
    values: Mapping[int, np.ndarray],
    names: Sequence[str],
) -> Chart:
    """Draw the values of runs, by their number, and say what they are."""
    kind, figure = chart.kind, chart.figure
    most = 1
    for number, value in values.items():
        known = ~np.isnan(value)
        x = tables[number]['x'][known]
        at, y, per_point = thin(x, value[known])
        most = max(most, per_point)
        few = kind.section == 'Scores' and len(at) <= DOTS
        color, dash = style_of(number)
        figure.add_scatter(
            x=at,
            y=y,
            # Plotly shows some tags in a name, so it gets none.
            name=html.escape(names[number], quote=False),
            mode='lines+markers' if few or len(at) == 1 else 'lines',
            line=dict(color=color, dash=dash, width=2),
            hovertemplate='%{y:.5~g}',
            legendgroup=str(number),
        )
        resumed = x[1:][np.diff(tables[number]['start'][known]) > 0]
        if len(resumed):
            figure.add_scatter(
                x=resumed,
                y=np.interp(resumed, at, y),
                mode='markers',
                marker=dict(symbol='diamond-open', size=9, color=color),
                hoverinfo='skip',
                legendgroup=str(number),
            )
    figure.update_xaxes(
        title=axis, unifiedhovertitle_text=f'{axis} %{{x:.6~g}}'
    )
    if kind.from_zero or any(shape.y0 == 0 for shape in figure.layout.shapes):
        figure.update_yaxes(rangemode='tozero')
    caption, latest = kind.caption, ''
    if most > 1:
        caption += f' Points are means of {most} logged values.'
    if len(values) == 1:
        latest = f'{y[np.isfinite(y)][-1]:.4g} {kind.unit}'.strip()
    return chart._replace(caption=caption, latest=latest)
