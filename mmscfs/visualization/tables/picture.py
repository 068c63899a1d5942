# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw tables to a PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .table import Table

OURS = '#dcebf7'  # behind the rows of runs
LINE = 0.27  # inches
CHARACTER = 0.082  # inches, on average
SCORE = 0.62  # inches


def draw_tables(
    tables: Sequence[Table], path: str | Path, footer: str
) -> None:
    """Draw tables below one another, our runs on a coloured ground.

    The best score of a column is bold.

    Args:
        tables (Sequence[Table]): At least one.
        path (str | Path): File to write.
        footer (str): Lines below all.
    """
    widths = [column_widths(table) for table in tables]
    longest = max(map(len, footer.splitlines()))
    width = max(*map(sum, widths), 0.85 * CHARACTER * longest) + 0.4
    heights = [LINE * (len(table.rows) + 4.2) for table in tables]
    lines = len(footer.splitlines())
    height = sum(heights) + LINE * (1 + 0.6 * lines)
    figure = Figure(figsize=(width, height))
    top = height
    for table, columns, part in zip(tables, widths, heights, strict=True):
        top -= part
        axes = figure.add_axes((0, top / height, 1, part / height))
        axes.set(xlim=(-0.2, width - 0.2), ylim=(part, 0))
        axes.axis('off')
        draw_table(axes, table, columns)
    figure.text(
        0.2 / width, 0.5 * LINE / height, footer, fontsize=8, color='0.35'
    )
    figure.savefig(path, dpi=150, facecolor='white')


def column_widths(table: Table) -> list[float]:
    """Return the width of each column in inches."""
    cells = [table.header] + [row.cells(table.columns) for row in table.rows]
    lengths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    count = len(table.labels)
    labels = [CHARACTER * (length + 2) for length in lengths[:count]]
    scores = [
        max(SCORE, CHARACTER * (length + 1)) for length in lengths[count:-1]
    ]
    # The title and the note need room too.
    taken = sum(labels) + sum(scores)
    title = CHARACTER * max(1.25 * len(table.title), 0.85 * len(table.note))
    last = max(CHARACTER * (lengths[-1] + 2), title - taken)
    return [*labels, *scores, last]


def draw_table(axes: Axes, table: Table, widths: Sequence[float]) -> None:
    """Draw a table into axes whose unit is an inch, from the top."""
    left = [sum(widths[:i]) for i in range(len(widths) + 1)]
    right = left[-1]
    axes.text(0, LINE, table.title, fontsize=11, weight='bold')
    axes.text(0, 1.85 * LINE, table.note, fontsize=8, color='0.35')
    best = {
        column: max(row.scores.get(column) or 0 for row in table.rows)
        for column in table.columns
    }

    def write(y: float, texts: Sequence[str], bold: Sequence[bool]) -> None:
        for i, text in enumerate(texts):
            is_text = i in (0, len(texts) - 1)
            axes.text(
                left[i] + 0.1 * (i > 0) if is_text else left[i + 1] - 0.1,
                y,
                text,
                fontsize=9,
                ha='left' if is_text else 'right',
                va='center',
                weight='bold' if bold[i] else 'normal',
            )

    def rule(y: float, linewidth: float) -> None:
        axes.plot([-0.06, right], [y, y], color='0.2', linewidth=linewidth)

    y = 2.3 * LINE
    rule(y, 1.2)
    header = [_formula(text) for text in table.header]
    write(y + LINE / 2, header, [False] * len(header))
    y += LINE
    rule(y, 0.6)
    for row in table.rows:
        if row.is_ours:
            axes.fill_between([-0.06, right], y, y + LINE, color=OURS, lw=0)
        bold = [
            len(table.rows) > 1 and row.scores.get(column) == best[column]
            for column in table.columns
        ]
        write(
            y + LINE / 2,
            row.cells(table.columns),
            [row.is_ours, *[False] * (len(row.labels) - 1), *bold, False],
        )
        y += LINE
    rule(y, 1.2)


def _formula(text: str) -> str:
    """Return "AP50^b" as matplotlib writes it nicely."""
    if '^' not in text:
        return text
    name, kind = text.split('^')
    return f'${{\\mathrm{{AP}}}}^{{{kind}}}_{{{name[2:]}}}$'
