# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the runs of tools/grid.py reached, and how it is shown."""

import json
from collections.abc import Mapping
from pathlib import Path

from grid_runs import Outcomes, Pair, best_pair
from rich.table import Table

NOTE = (
    'The score is that of the last validation, on the val split of the '
    'config. The optimiser gets the weight decay over the learning rate.'
)


def make_rows(outcomes: Outcomes, best: str, failed: str) -> list[list[str]]:
    """Make the table: a learning rate a row, a weight decay a column.

    Args:
        outcomes (Outcomes): Those of all pairs.
        best (str): The best cell, with ``{}`` for the score.
        failed (str): The cell of a run without a score.
    """
    decays = sorted({pair.weight_decay for pair in outcomes})
    rows = [['lr \\ weight decay', *(f'{decay:g}' for decay in decays)]]
    for lr in sorted({pair.lr for pair in outcomes}):
        row = [f'{lr:g}']
        for pair in (Pair(lr, decay) for decay in decays):
            score = outcomes[pair].score
            text = failed if score is None else f'{score:.2f}'
            is_best = pair == best_pair(outcomes)
            row.append(best.format(text) if is_best else text)
        rows.append(row)
    return rows


def to_table(outcomes: Outcomes) -> Table:
    """Return the table for the terminal."""
    (corner, *decays), *rows = make_rows(
        outcomes, '[bold green]{} ◀[/]', '[red]-[/]'
    )
    table = Table()
    table.add_column(corner, justify='right')
    for decay in decays:
        table.add_column(decay, justify='right', no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(outcomes: Outcomes, title: str) -> str:
    """Return the table as markdown, with what has no score and why."""
    header, *rows = make_rows(outcomes, '**{}**', '-')
    rule = ['--:'] * len(header)
    lines = [f'# {title}', '', NOTE, '']
    lines += [f'| {" | ".join(row)} |' for row in (header, rule, *rows)]
    problems = [
        f'- {pair.name}: {outcome.problem}'
        for pair, outcome in outcomes.items()
        if outcome.problem
    ]
    if problems:
        lines += ['', 'No score:', '', *problems]
    return '\n'.join([*lines, ''])


def write_report(
    folder: Path, settings: Mapping, outcomes: Outcomes, title: str
) -> None:
    """Write grid.json and grid.md.

    Args:
        folder (Path): Where to.
        settings (Mapping): What all runs have in common, for grid.json.
        outcomes (Outcomes): Those of all pairs.
        title (str): Of the table.

    Raises:
        OSError: They cannot be written.
    """
    from mmscfs.checkpoint import write_atomically

    best = best_pair(outcomes)
    runs = [
        pair._asdict() | outcome._asdict() | dict(work_dir=pair.name)
        for pair, outcome in outcomes.items()
    ]
    content = dict(settings, best=best and best._asdict(), runs=runs)
    text = json.dumps(content, indent=2)
    write_atomically(folder / 'grid.json', f'{text}\n'.encode())
    text = to_markdown(outcomes, title)
    write_atomically(folder / 'grid.md', text.encode())
