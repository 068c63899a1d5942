# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The paper's tables, and what stands beside their rows.

``paper.yml`` has the rows, and says what belongs beside them.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from mmengine.fileio import load

from .origin import Origin
from .tables import Row, Table

UNTRAINED = ('random', 'supervised')  # without self-supervised pre-training
VARYING = ('batch', 'epochs', 'protocol')  # in rows of one kind


class Entry(NamedTuple):
    """Scores of one network, from a result file or a detection run."""

    origin: Origin  #: How the network was pre-trained.
    #: What ``paper.yml`` compares and names rows by, e.g. ``protocol``,
    #: ``dataset`` and ``backbone``.
    facts: Mapping[str, Any]
    #: Percent by name; "score" is the one that a protocol is known by.
    scores: Mapping[str, float]
    source: str  #: What the row's source names.
    path: str  #: The file or folder that was read.
    start: Hashable  #: What entries of one network have in common.
    problem: str = ''  #: Why it lacks scores.
    variant: str = ''  #: Name of a sweep's variant.
    seed: int | None = None  #: Seed of the sweep's pre-training.


class PaperTable(NamedTuple):
    """A table of the paper, and what belongs to it."""

    #: Its rows. A title with facts in braces makes one table for each of their
    #: values.
    table: Table
    of: Mapping[str, Any]  #: Facts of all that stands in it.
    #: Facts of each column, and ``score``, the name of its score if that is
    #: not "score".
    columns: Mapping[str, Mapping[str, Any]]
    across: str  #: The setting that tells the columns apart, or "".

    def scores_of(self, entry: Entry) -> dict[str, float]:
        """Return an entry's scores by column; {} if it has others."""
        names = {c: f.get('score', 'score') for c, f in self.columns.items()}
        return {
            column: entry.scores[name]
            for column, name in names.items()
            if name in entry.scores
            and fits(
                dict(entry.facts, score=name),
                {**self.of, **self.columns[column]},
            )
        }

    def place(self, labels: Mapping[str, str]) -> float:
        """Return where a row stands: behind the last row of its kind.

        Untrained networks come first, other methods last.

        Args:
            labels (Mapping[str, str]): Its labels by name, the first of
                them without data and network.
        """
        names, rows = self.table.labels, self.table.rows

        def kind(labels: Mapping[str, str]) -> list[str]:
            words = [labels[name] for name in names if name not in VARYING]
            words[0] = words[0].rstrip('*').replace('Scratch', 'random')
            return [word.lower() for word in words]

        place: float = -1 if labels[names[0]] in UNTRAINED else len(rows)
        for i, row in enumerate(rows):
            if kind(dict(zip(names, row.labels, strict=True))) == kind(labels):
                place = i + 0.5
        return place


def fits(facts: Mapping, wanted: Mapping[str, Any]) -> bool:
    """Tell whether all facts are among the values that are wanted."""
    return all(
        facts.get(name) in (values if isinstance(values, list) else [values])
        for name, values in wanted.items()
    )


def read_paper() -> tuple[dict[str, PaperTable], dict[str, list]]:
    """Read ``paper.yml``.

    Returns:
        tuple: The tables by number; Table 4 has two, "4 1x" and "4 2x". The
        numbers of images by data set.
    """
    content = load(Path(__file__).with_name('paper.yml'))
    tables = {}
    for number, given in content['tables'].items():
        labels, columns = tuple(given['labels']), given['columns']
        if isinstance(columns, list):
            columns = {name: dict(score=name) for name in columns}
        of, varies = given.get('of', {}), given.get('varies', ())
        if 'varies' in given:
            recipe = content['recipe'].items()
            of = {k: v for k, v in recipe if k not in varies} | of
        rows = [
            Row(
                tuple(map(str, row[: len(labels)])),
                dict(zip(columns, row[len(labels) :], strict=True)),
                f'paper (Table {number.split()[0]})',
                False,
            )
            for row in given.get('rows', ())
        ]
        tables[number] = PaperTable(
            Table(given['title'], given['note'], labels, tuple(columns), rows),
            of,
            columns,
            # All columns have facts of the same names.
            next(
                (n for n in varies if all(n in c for c in columns.values())),
                '',
            ),
        )
    return tables, content['images']


PAPER, IMAGES = read_paper()


def arrange(entries: Sequence[Entry]) -> list[Table]:
    """Put entries into tables, beside the paper's rows where they belong.

    An entry stands in every table that it belongs to, or else in a table of
    its data. A table is left out if an earlier one has all of its entries.
    Entries with a problem are left out.

    Example:
        >>> for table in arrange([read_run('work_dirs/mask-rcnn_scfs')]):
        ...     print(table.title)
        COCO, Mask R-CNN R50-FPN, 1x schedule
    """
    scored = [entry for entry in entries if not entry.problem]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, entry in enumerate(scored):
        fitting = [name for name, p in PAPER.items() if p.scores_of(entry)]
        papers = [name for name in fitting if 'other' not in name]
        for name in papers or fitting:
            title = PAPER[name].table.title.format_map(entry.facts)
            groups.setdefault((name, title), []).append(i)
    order = [*PAPER]
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    members = [{*groups[key]} for key in keys]
    return [
        make_table(PAPER[key[0]], key[1], [scored[i] for i in groups[key]])
        for at, key in enumerate(keys)
        if not any(members[at] <= earlier for earlier in members[:at])
    ]


def make_table(
    paper: PaperTable, title: str, entries: Sequence[Entry]
) -> Table:
    """Make a table of entries, in the order of the paper.

    Entries of one network share a row, unless they repeat a score. Seeds of
    a sweep's variant have another row with their mean.
    """
    # The rows of each network, and the entries of each.
    groups: dict[Hashable, list[tuple[Row, list[Entry]]]] = {}
    places: dict[Hashable, float] = {}
    for entry in entries:
        origin, network = entry.origin, entry.variant or entry.start
        if paper.across:  # a row has all pre-trainings that differ in it
            recipe = dict(origin.recipe)
            recipe.pop(paper.across, None)
            origin = origin._replace(recipe=recipe)
            network = str(origin), entry.facts['backbone']
        known = dict(
            entry.facts, batch=origin.batch_size, epochs=origin.epochs
        )
        first, *others = paper.table.labels
        texts = {name: str(known.get(name) or '-') for name in others}
        labels = (origin.label, *texts.values())
        places[network, labels] = paper.place({first: origin.mode, **texts})
        rows = groups.setdefault((network, labels), [])
        scores = paper.scores_of(entry)
        for row, own in rows:
            if own[0].seed == entry.seed and not row.scores.keys() & scores:
                row.scores.update(scores)
                own.append(entry)
                break
        else:
            rows.append((Row(labels, scores, '', True), [entry]))
    placed: list[tuple[float, Row]] = [*enumerate(paper.table.rows)]
    for key, rows in groups.items():
        group: list[Row] = []
        for row, own in rows:
            # A score that the network has twice is told apart by its file.
            again = own[0].seed in [e[0].seed for r, e in rows[: len(group)]]
            sources = [entry.path if again else entry.source for entry in own]
            source = f'this run ({", ".join(dict.fromkeys(sources))})'
            group.append(row._replace(source=source))
        found = (own[0].seed for _, own in rows)
        seeds = {seed for seed in found if seed is not None}
        if len(seeds) == len(rows) > 1:
            group.append(mean_row(group, seeds))
        placed += [(places[key], row) for row in group]
    placed.sort(key=lambda item: item[0])
    return paper.table._replace(title=title, rows=[row for _, row in placed])


def mean_row(rows: Sequence[Row], seeds: Iterable[int]) -> Row:
    """Average the scores that all rows have."""
    columns = {
        name: [float(row.scores[name]) for row in rows]
        for name in rows[0].scores
        if all(name in row.scores for row in rows)
    }
    return Row(
        rows[0].labels,
        {name: mean(values) for name, values in columns.items()},
        'this run: mean and standard deviation of seeds '
        + ', '.join(map(str, sorted(seeds))),
        True,
        {name: stdev(values) for name, values in columns.items()},
    )
