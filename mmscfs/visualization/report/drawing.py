# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw charts as svg whose colours are variables of the page."""

import io
import math
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .charts import Chart, Series

WIDTH, HEIGHT = 440, 236  # units of the svg, pixels at full width
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 46
FONT = 15  # units that labels have room for; the page sets their size
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
COLORS = 5
DASHES = ('-', (0, (6, 2)), (0, (2, 1.6)), (0, (7, 2, 1.5, 2)))
MARKERS = 'osD^vPX'
MARKS = 6  # on a curve, where several are told apart
DOTS = 40  # validations, more would touch

# Colours that stand for the page's, which depend on light and dark.
SENTINELS = {
    'text': '#fe0100',
    'grid': '#fe0200',
    'edge': '#fe0300',
    'surface': '#fe0400',
    **{f'run-{i}': f'#fe05{i:02x}' for i in range(COLORS)},
}


def style_of(number: int, runs: int) -> dict:
    """Return a run's colour, dashes and marker; plain if there is one.

    No two of the first 20 runs have both colour and dashes in common.
    """
    return dict(
        color=SENTINELS[f'run-{number % COLORS}'],
        linestyle=DASHES[number % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)] if runs > 1 else None,
        markersize=5.5,
        markeredgewidth=0,
        linewidth=2,
    )


def draw_chart(chart: Chart, key: str, runs: int) -> Markup:
    """Return a chart as svg.

    Args:
        chart (Chart): What to draw.
        key (str): A word of the page's own, which no other chart has.
        runs (int): How many runs the page has.
    """
    figure, axes = _new_axes()
    low, high = math.inf, -math.inf
    for series in chart.series:
        low = min(low, np.nanmin(series.curve.low))
        high = max(high, np.nanmax(series.curve.high))
        _draw_series(axes, chart, series, runs)
    places = {x for series in chart.series for x in series.curve.x}
    if len(places) == 1:  # of which a whole one is marked
        (place,) = places
        axes.set_xlim(max(place - 1, 0), place + 1)
    for bottom, top, _ in chart.edges:
        low, high = min(low, bottom), max(high, top)
    if chart.from_zero:
        low = min(low, 0.0)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    is_floor = low == 0 and (chart.from_zero or chart.edges)
    axes.set_ylim(low if is_floor else low - room, high + room)
    for edge in chart.edges:
        _draw_edge(axes, *edge)
    label = f'Chart: {chart.title}. Its values are in the table that follows.'
    return to_svg(figure, key, label)


def draw_swatch(number: int, runs: int, key: str) -> Markup:
    """Return a piece of a run's curve, for the legend."""
    figure = Figure(figsize=(44 / 72, 12 / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis('off')
    axes.set(xlim=(0, 1), ylim=(-1, 1))
    axes.plot(
        [0.02, 0.5, 0.98], [0, 0, 0], markevery=[1], **style_of(number, runs)
    )
    return to_svg(figure, key)


def _new_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
    axes = figure.add_axes(
        (
            LEFT / WIDTH,
            BOTTOM / HEIGHT,
            (WIDTH - LEFT - RIGHT) / WIDTH,
            (HEIGHT - TOP - BOTTOM) / HEIGHT,
        )
    )
    axes.spines[['left', 'right', 'top']].set_visible(False)
    axes.spines['bottom'].set_color(SENTINELS['grid'])
    axes.grid(axis='y', color=SENTINELS['grid'], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(
        length=0, pad=7, labelsize=FONT, labelcolor=SENTINELS['text']
    )
    axes.margins(x=0.01)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: shorten(v)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: shorten(v)))
    return figure, axes


def _draw_series(axes: Axes, chart: Chart, series: Series, runs: int) -> None:
    style = style_of(series.run, runs)
    curve = series.curve
    finite = int(np.isfinite(curve.y).sum())
    if chart.dots and finite <= DOTS or finite == 1:
        style['marker'] = style['marker'] or 'o'
    elif style['marker']:
        # Not all at one place, where runs agree.
        step = max(1, len(curve.x) // MARKS)
        style['markevery'] = (series.run * step // 3 % step, step)
    if curve.per_point > 1:
        axes.fill_between(
            curve.x,
            curve.low,
            curve.high,
            color=style['color'],
            alpha=0.18,
            lw=0,
        )
    if series.below is not None:
        axes.fill_between(
            series.below.x,
            series.below.y,
            color=style['color'],
            alpha=0.3,
            lw=0,
        )
    axes.plot(curve.x, curve.y, solid_capstyle='round', **style)
    axes.set_xlabel(
        chart.axis,
        fontsize=FONT,
        color=SENTINELS['text'],
        loc='right',
        labelpad=2,
    )


def _draw_edge(axes: Axes, bottom: float, top: float, words: str) -> None:
    axes.axhspan(bottom, top, color=SENTINELS['edge'], alpha=0.35, lw=0)
    middle = (bottom + top) / 2 if bottom else 0
    # The range alone may be thinner than a pixel.
    axes.axhline(middle, color=SENTINELS['edge'], linewidth=1.5)
    if bottom:
        axes.annotate(
            words,
            (1, middle),
            (-2, -4),
            xycoords=('axes fraction', 'data'),
            textcoords='offset points',
            ha='right',
            va='top',
            fontsize=FONT,
            color=SENTINELS['edge'],
            gid='words',
        )


def shorten(value: float) -> str:
    """Return a number in few characters: 12k, 0.0025, 3e-05."""
    if abs(value) >= 10000:
        return f'{value / 1000:g}k'
    text = f'{value:.5g}'
    return text if len(text) < 8 else f'{value:.1e}'


def to_svg(figure: Figure, key: str, label: str = '') -> Markup:
    """Return a figure as svg, to stand in a page among others.

    Its ids begin with ``key``, its colours are the page's, and so are its
    fonts. A screen reader says its label, or passes it over without one.
    """
    buffer = io.BytesIO()
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': key}):
        names = ('Creator', 'Date', 'Format', 'Type')
        figure.savefig(
            buffer,
            format='svg',
            transparent=True,
            metadata=dict.fromkeys(names),
        )
    text = buffer.getvalue().decode()
    text = text[text.index('<svg') :]
    (box,) = re.findall(r'viewBox="[^"]*"', text)[:1]
    text = text[text.index('>') + 1 :]
    # It would be of the whole page.
    text = re.sub(r'<style.*?</style>', '', text, flags=re.DOTALL)
    text = re.sub(r'font-size: [^;]*; font-family: [^;"]*;? ?', '', text)
    text = text.replace('id="words"', 'class="words"')
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', text))
    text = re.sub(
        r' id="([^"]*)"',
        lambda m: f' id="{key}-{m[1]}"' if m[1] in used else '',
        text,
    )
    text = re.sub(r'(href="|url\()#', rf'\1#{key}-', text)
    for name, color in SENTINELS.items():
        text = text.replace(color, f'var(--{name})')
    text = re.sub(r'\s*\n\s*', ' ', text)
    role = Markup('role="img" aria-label="{}"').format(label)
    role = role if label else 'aria-hidden="true"'
    return Markup(f'<svg class="drawing" {box} {role}>{text}')


def to_rows(
    chart: Chart, most: int = 20
) -> tuple[Sequence[int], list[tuple[str, list[str]]]]:
    """Return a chart's values as a table.

    Returns:
        tuple[Sequence[int], list[tuple[str, list[str]]]]: The runs of the
        columns; for each row its position and the values, "–" where a run
        has none there.
    """
    columns = []
    for series in chart.series:
        x, y = series.curve.x, series.curve.y
        places = np.linspace(0, len(x) - 1, min(most, len(x))).round()
        columns.append({x[i]: y[i] for i in places.astype(int)})
    positions = sorted({x for column in columns for x in column})
    rows = []
    for x in positions:
        values = [column.get(x, math.nan) for column in columns]
        texts = [f'{v:.5g}' if v == v else '–' for v in values]
        # Of epochs a few digits, of iterations all.
        rows.append((f'{x:.5g}' if x < 10000 else f'{x:.0f}', texts))
    return [series.run for series in chart.series], rows
