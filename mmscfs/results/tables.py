# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tables of scores beside the paper's: printed, and as files."""

import csv
import io
import sys
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmscfs.checkpoint import write_atomically


class Row(NamedTuple):
    """A line of a table."""

    labels: tuple[str, ...]  #: What the scores are of.
    scores: dict[str, Any]  #: By column, as a rule percent.
    source: str  #: Where they come from.
    is_ours: bool  #: From a run, not from the paper.
    #: Standard deviations by column, of scores that are means.
    deviations: dict[str, float] = {}
    digits: int = 1  #: Of the scores behind the point.
    #: Columns whose score gets the mark "*" for the best one, but not in CSV
    #: files.
    best: Set[str] = frozenset()

    def cells(self, columns: Sequence[str]) -> list[str]:
        """Return the texts of the line, "-" where it lacks a score."""
        scores = [self.scores.get(column) for column in columns]
        texts = ['-' if v is None else f'{v:.{self.digits}f}' for v in scores]
        for i, column in enumerate(columns):
            if column in self.deviations:
                texts[i] += f' ± {self.deviations[column]:.{self.digits}f}'
            if column in self.best:
                texts[i] += ' *'
        return [*self.labels, *texts, self.source]


class Table(NamedTuple):
    """Rows that can be compared: of the paper, of runs, or of both."""

    title: str  #: The line above it.
    note: str  #: The line below it.
    #: Names of the rows' labels, that of the method first.
    labels: tuple[str, ...]
    all_columns: tuple[str, ...]  #: Names of the scores.
    rows: list[Row]  #: The lines.

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


class Summary(NamedTuple):
    """What a command gathered."""

    heading: str  #: The first line.
    footer: str  #: What holds for all scores.
    tables: list[Table]  #: Tables.
    problems: list[str]  #: What lacks a score, and why.

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
        if self.problems:
            lines += ['## Not scored', '']
            lines += [f'- {problem}' for problem in self.problems]
            lines.append('')
        return '\n'.join(lines)

    def to_csv(self) -> str:
        """Return a line for each row, under the columns of all tables."""
        labels = list(dict.fromkeys(n for t in self.tables for n in t.labels))
        columns = list(
            dict.fromkeys(n for t in self.tables for n in t.all_columns)
        )
        file = io.StringIO(newline='')
        writer = csv.writer(file)
        writer.writerow(['table', *labels, *columns, 'source'])
        for table in self.tables:
            for row in table.rows:
                own = dict(zip(table.labels, row.labels, strict=True))
                texts = tuple(own.get(name, '') for name in labels)
                cells = row._replace(labels=texts, best=frozenset()).cells(
                    columns
                )
                writer.writerow([table.title, *cells])
        gap = [''] * (len(labels) + len(columns))
        for problem in self.problems:
            writer.writerow(['not scored', *gap, problem])
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
        """Write the files, then print the tables; return an exit code.

        It is 1 if writing failed, in the folder that ``option`` named.
        """
        try:
            self.write(path)
        except OSError as error:
            print(f'error: {option} {path.parent}: {error}', file=sys.stderr)
            return 1
        self.print()
        for problem in self.problems:
            print(f'not scored: {problem}')
        print(self.footer)
        print(f'written: {path.with_suffix("")}.md and .csv')
        return 0
