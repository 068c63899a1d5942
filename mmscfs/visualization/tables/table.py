# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from typing import NamedTuple

RANKS = {'random': 0, 'scratch': 0, 'supervised': 1, 'dino': 8, 'scfs': 9}


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        labels (tuple[str, ...]): What the scores are of.
        scores (Mapping[str, float | None]): Percent by column.
        source (str): Where they come from.
        is_ours (bool): From a run, not from the paper.
        deviations (dict[str, float]): Standard deviations by column, of
            scores that are means. Defaults to {}: they are none.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float | None]
    source: str
    is_ours: bool
    deviations: dict[str, float] = {}

    def cells(self, columns: Sequence[str]) -> list[str]:
        """Return the texts of the line, "-" where there is no score."""
        scores = [self.scores.get(column) for column in columns]
        texts = ['-' if v is None else f'{v:.1f}' for v in scores]
        for i, column in enumerate(columns):
            if column in self.deviations:
                texts[i] += f' ± {self.deviations[column]:.1f}'
        return [*self.labels, *texts, self.source]


class Table(NamedTuple):
    """Rows that can be compared.

    Attributes:
        title (str): The line above it.
        note (str): The line below it.
        labels (tuple[str, ...]): Names of the rows' labels.
        all_columns (tuple[str, ...]): Names of the scores.
        rows (list[Row]): The lines.
    """

    title: str
    note: str
    labels: tuple[str, ...]
    all_columns: tuple[str, ...]
    rows: list[Row]

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


def rank(method: str) -> int:
    """Return where the paper puts a method: DINO and SCFS last."""
    return RANKS.get(method.rstrip('*').lower(), 2)
