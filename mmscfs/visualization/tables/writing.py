# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmscfs.checkpoint import write_atomically

from .picture import draw_tables
from .table import Table


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables, our runs in colour."""
    # A pipe or a file would get 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        printed = RichTable(title=table.title, caption=table.note)
        for i, name in enumerate(table.header):
            is_text = i in (0, len(table.header) - 1)
            printed.add_column(
                name,
                justify='left' if is_text else 'right',
                no_wrap=not is_text,
                overflow='fold',
            )
        for row in table.rows:
            cells = map(escape, row.cells(table.columns))
            printed.add_row(*cells, style='green' * row.is_ours)
        console.print(printed)


def to_markdown(
    heading: str,
    footer: str,
    tables: Sequence[Table],
    problems: Sequence[str] = (),
) -> str:
    """Return everything as markdown, our runs bold.

    Args:
        heading (str): The first line.
        footer (str): What holds of all scores.
        tables (Sequence[Table]): Tables.
        problems (Sequence[str]): What could not be scored, and why.
    """
    lines = [f'# {heading}', '', footer, '']
    for table in tables:
        names = table.header
        rule = [':--', *['--:'] * (len(names) - 2), ':--']
        lines += [f'## {table.title}', '', table.note, '']
        lines += [f'| {" | ".join(names)} |', f'| {" | ".join(rule)} |']
        for row in table.rows:
            cells = [
                cell.replace('|', '\\|').replace('*', '\\*')
                for cell in row.cells(table.columns)
            ]
            if row.is_ours:
                cells = [f'**{cell}**' for cell in cells]
            lines.append(f'| {" | ".join(cells)} |')
        lines.append('')
    if problems:
        lines += ['## Not scored', '']
        lines += [f'- {problem}' for problem in problems]
        lines.append('')
    return '\n'.join(lines)


def to_csv(tables: Sequence[Table]) -> str:
    """Return a line for each row of each table, under the columns of all."""
    labels = list(dict.fromkeys(n for table in tables for n in table.labels))
    columns = list(
        dict.fromkeys(n for table in tables for n in table.all_columns)
    )
    file = io.StringIO(newline='')
    writer = csv.writer(file)
    writer.writerow(['table', *labels, *columns, 'source'])
    for table in tables:
        for row in table.rows:
            own = dict(zip(table.labels, row.labels, strict=True))
            texts = tuple(own.get(name, '') for name in labels)
            cells = row._replace(labels=texts).cells(columns)
            writer.writerow([table.title, *cells])
    return file.getvalue()


def write_tables(
    path: Path,
    heading: str,
    footer: str,
    tables: Sequence[Table],
    unscored: Table,
    problems: Sequence[str],
) -> None:
    """Write tables as markdown and csv; see :func:`publish`.

    Raises:
        OSError: They cannot be written.
    """
    text = to_markdown(heading, footer, tables, problems)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    text = to_csv([*tables, unscored])
    write_atomically(path.with_suffix('.csv'), text.encode())


def publish(
    path: Path,
    heading: str,
    footer: str,
    tables: Sequence[Table],
    unscored: Table,
    problems: Sequence[str],
) -> int:
    """Write tables as markdown, csv and png, and print them.

    Args:
        path (Path): The markdown file; the others lie beside it.
        heading (str): The first line.
        footer (str): What holds of all scores.
        tables (Sequence[Table]): Tables; there is no png of none.
        unscored (Table): Rows without a score, for the csv file.
        problems (Sequence[str]): The same in words, for the others.

    Returns:
        int: The exit code of a command: 0, or 1 if writing failed.
    """
    picture = path.with_suffix('.png')
    try:
        write_tables(path, heading, footer, tables, unscored, problems)
        problems = [f'not scored: {problem}' for problem in problems]
        # Not to leave that of an earlier call.
        picture.unlink(missing_ok=True)
        if tables:
            draw_tables(tables, picture, '\n'.join([footer, *problems]))
    except OSError as error:
        print(f'error: --out {path.parent}: {error}', file=sys.stderr)
        return 1
    print_tables(tables)
    written = '.md, .csv and .png' if tables else '.md and .csv'
    lines = [*problems, footer, f'written: {path.with_suffix("")}{written}']
    print('\n'.join(lines))
    return 0
