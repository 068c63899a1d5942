# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tables of scores beside the paper's: printed, and as files."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from mmengine.fileio import load
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmscfs.checkpoint import write_atomically

UNTRAINED = ('random', 'supervised')  # without self-supervised pre-training
# The order where the paper has no row of the same kind; others are between.
RANKS = {'random': 0, 'supervised': 1, 'dino': 8, 'scfs': 9}
# Labels that rows of one kind need not share.
VARYING = ('batch', 'epochs', 'evaluation')


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        labels (tuple[str, ...]): What the scores are of.
        scores (Mapping[str, float | None]): Percent by column.
        source (str): Where they come from.
        is_ours (bool): From a run, not from the paper.
        deviations (dict[str, float]): Standard deviations by column, of
            scores that are means. Defaults to {}.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float | None]
    source: str
    is_ours: bool
    deviations: dict[str, float] = {}

    def cells(self, columns: Sequence[str]) -> list[str]:
        """Return the texts of the line, "-" where it lacks a score."""
        scores = [self.scores.get(column) for column in columns]
        texts = ['-' if v is None else f'{v:.1f}' for v in scores]
        for i, column in enumerate(columns):
            if column in self.deviations:
                texts[i] += f' ± {self.deviations[column]:.1f}'
        return [*self.labels, *texts, self.source]


class Table(NamedTuple):
    """Rows that can be compared: of the paper, of runs, or of both.

    Attributes:
        title (str): The line above it.
        note (str): The line below it.
        labels (tuple[str, ...]): Names of the rows' labels, that of the
            method first.
        all_columns (tuple[str, ...]): Names of the scores.
        rows (list[Row]): The lines.
        evaluations (str): The protocols and data sets of a table of the
            paper. Defaults to "".
    """

    title: str
    note: str
    labels: tuple[str, ...]
    all_columns: tuple[str, ...]
    rows: list[Row]
    evaluations: str = ''

    @property
    def columns(self) -> list[str]:
        """The columns that a row has a score in."""
        return [
            column
            for column in self.all_columns
            if any(row.scores.get(column) is not None for row in self.rows)
        ]

    @property
    def header(self) -> list[str]:
        """The texts above the columns."""
        return [*self.labels, *self.columns, 'source']

    def place(self, labels: Mapping[str, str]) -> float:
        """Return where a row stands: behind the last row of its kind.

        Untrained networks come first, other methods last.

        Args:
            labels (Mapping[str, str]): The row's labels by their names.
        """
        kind = self._kind(labels)
        places = [
            i + 0.5
            for i, row in enumerate(self.rows)
            if kind
            == self._kind(dict(zip(self.labels, row.labels, strict=True)))
        ]
        if places:
            return places[-1]
        if self.rows and kind[0] not in UNTRAINED:
            return len(self.rows)
        return RANKS.get(kind[0], 2) - 10

    def _kind(self, labels: Mapping[str, str]) -> list[str]:
        words = [labels[n] for n in self.labels if n not in VARYING]
        words[0] = words[0].rstrip('*').replace('Scratch', 'random')
        return [word.lower() for word in words]

    def beside(
        self, ours: Sequence[tuple[float, Row]], title: str = ''
    ) -> 'Table':
        """Return the table with rows of runs.

        Args:
            ours (Sequence[tuple[float, Row]]): The rows of runs, with their
                places.
            title (str): Another title. Defaults to "": the same.
        """
        placed = sorted([*ours, *enumerate(self.rows)], key=itemgetter(0))
        rows = [row for _, row in placed]
        found = [name for row in rows for name in row.scores]
        return self._replace(
            title=title or self.title,
            all_columns=tuple(dict.fromkeys([*self.all_columns, *found])),
            rows=rows,
        )


@cache
def read_paper(kind: str) -> dict[str, Table]:
    """Read the paper's tables of "classification" or "detection".

    Returns:
        dict[str, Table]: By number; Table 4 has two, "4 1x" and "4 2x".
    """
    tables = {}
    path = Path(__file__).parent / 'paper' / f'{kind}.yml'
    for name, table in load(path).items():
        labels, columns = tuple(table['labels']), tuple(table['columns'])
        rows = [
            Row(
                tuple(map(str, row[: len(labels)])),
                dict(zip(columns, row[len(labels) :], strict=True)),
                f'paper (Table {name.split()[0]})',
                False,
            )
            for row in table.get('rows', ())
        ]
        note, evaluations = table['note'], table['evaluations']
        tables[name] = Table(
            table['title'], note, labels, columns, rows, evaluations
        )
    return tables


class Summary(NamedTuple):
    """What a command gathered.

    Attributes:
        heading (str): The first line.
        footer (str): What holds for all scores.
        tables (list[Table]): Tables.
        unscored (Table): Rows without a score; their sources tell why.
    """

    heading: str
    footer: str
    tables: list[Table]
    unscored: Table

    def to_markdown(self) -> str:
        """Return everything as Markdown, our runs bold."""
        lines = [f'# {self.heading}', '', self.footer, '']
        for table in self.tables:
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
        if self.unscored.rows:
            lines += ['## Not scored', '']
            lines += [f'- {row.source}' for row in self.unscored.rows]
            lines.append('')
        return '\n'.join(lines)

    def to_csv(self) -> str:
        """Return a line for each row, under the columns of all tables."""
        tables = [*self.tables, self.unscored]
        labels = list(dict.fromkeys(n for t in tables for n in t.labels))
        columns = list(dict.fromkeys(n for t in tables for n in t.all_columns))
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

    def print(self) -> None:
        """Print the tables, our runs in color."""
        # A pipe or a file would get 80 columns.
        console = Console(width=None if sys.stdout.isatty() else 160)
        for table in self.tables:
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

    def write(self, path: Path) -> None:
        """Write a Markdown file, and a CSV file beside it.

        Each is whole, or as it was before.

        Raises:
            OSError: They cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_markdown().encode())
        write_atomically(path.with_suffix('.csv'), self.to_csv().encode())

    def publish(self, path: Path, option: str = '--out') -> int:
        """Write the files, then print the tables.

        Args:
            path (Path): The Markdown file.
            option (str): What named its folder. Defaults to "--out".

        Returns:
            int: The exit code of a command: 0, or 1 if writing failed.
        """
        try:
            self.write(path)
        except OSError as error:
            print(f'error: {option} {path.parent}: {error}', file=sys.stderr)
            return 1
        self.print()
        for row in self.unscored.rows:
            print(f'not scored: {row.source}')
        print(self.footer)
        print(f'written: {path.with_suffix("")}.md and .csv')
        return 0
