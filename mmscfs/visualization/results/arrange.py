# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Arrange results as the paper's tables, the paper's rows beside."""

from collections.abc import Hashable, Mapping, Sequence
from statistics import mean, stdev

from mmscfs.checkpoint import Result

from ..tables import Row, Table, rank
from .columns import PROTOCOLS, SERIES, belongs, group_of, scores_in
from .entries import Entry, contrast_mode, label, search_layers
from .paper_tables import PAPER_TABLES, PaperTable

LABELS = ('method', 'backbone', 'batch', 'epochs')
UNTRAINED = ('random', 'supervised')  # no self-supervised pre-training
ALIKE = ('method', 'backbone', 'search layers')  # labels that say which row


def arrange(
    entries: Sequence[Entry], number: str | None = None
) -> tuple[list[Table], list[tuple[Entry, str]]]:
    """Put results into tables.

    The paper's rows stand only beside results of its data, whole, and its
    backbones; others get a table of their data set.

    Args:
        entries (Sequence[Entry]): The results.
        number (str, optional): The paper's table to take, for any backbone
            and recipe; None finds it. Defaults to None.

    Returns:
        tuple: The tables, and the entries left out, each with the reason.

    Raises:
        ValueError: No result is of table ``number``.
    """
    left_out = [(entry, entry.problem) for entry in entries if entry.problem]
    scored = [entry for entry in entries if not entry.problem]
    if number is None:
        groups = find_groups(scored)
    else:
        groups, evaluations = {}, PAPER_TABLES[number].evaluations
        for entry in scored:
            if scores_in(entry, number):
                groups.setdefault(group_of(entry, number), []).append(entry)
            else:
                left_out.append((entry, f'--table {number} has {evaluations}'))
        if scored and not groups:
            raise ValueError(
                f'--table {number} has {evaluations}; none of the results is '
                f'of these ({scored[0].path}: {scored[0].result.protocol} on '
                f'{scored[0].result.dataset})'
            )
    order = [*PAPER_TABLES, '']
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    return [make_table(*key, groups[key]) for key in keys], left_out


def find_groups(
    entries: Sequence[Entry],
) -> dict[tuple[str, str], list[Entry]]:
    """Find the tables that entries stand in, by :func:`group_of`."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    fitting = []
    for entry in entries:
        found = [n for n in PAPER_TABLES if belongs(entry, n)] or ['']
        keys = [group_of(entry, name) for name in found]
        fitting.append((entry, keys))
        if len(keys) == 1:
            groups[keys[0]] = []
    # The paper's default recipe stands in several of its tables: it opens
    # the first, and joins those that a varied recipe opened.
    opened = set(groups)
    for entry, keys in fitting:
        taken = [keys[0], *(key for key in keys[1:] if key in opened)]
        if scores_in(entry, 'fig4'):
            taken.append(group_of(entry, 'fig4'))
        for key in taken:
            groups.setdefault(key, []).append(entry)
    return groups


def make_table(number: str, data: str, entries: Sequence[Entry]) -> Table:
    """Make a table of entries, in the order of the paper."""
    if number:
        paper = PAPER_TABLES[number]
    else:
        paper = PaperTable(
            data,
            'No rows of the paper beside it. Top-1, but for mAP; for Aircraft '
            'and Pets the mean over classes where a classifier was trained.',
            '',
            LABELS,
            tuple(PROTOCOLS.values()),
        )
    title = f'{paper.title}, {data}' if number and data else paper.title
    placed = []
    for i, (texts, scores) in enumerate(paper.rows):
        scores = dict(zip(paper.columns, scores, strict=True))
        row = Row(texts, scores, f'paper (Table {number})', False)
        placed.append((i, row))
    merged = merge(entries, number)
    starts = [own[0].start for _, own in merged]
    repeats: dict[Hashable, list[tuple[float, Row, int | None]]] = {}
    for i, (scores, own) in enumerate(merged):
        entry = own[0]
        labels = labels_of(entry.result, number)
        position = place(labels, paper)
        if number in ('', 'fig4'):
            labels['method'] = contrast_mode(entry.result)
        labels['method'] = label(entry.result, labels['method'])
        texts = tuple(labels[name] for name in paper.labels)
        source = describe(own, paper, starts.count(entry.start) > 1)
        key = texts, '' if number in SERIES else entry.variant
        repeats.setdefault(key if entry.variant else i, []).append(
            (position, Row(texts, scores, source, True), entry.seed)
        )
    for group in repeats.values():
        positions, rows, seeds = zip(*group, strict=True)
        placed += zip(positions, rows, strict=True)
        if len(set(seeds)) == len(seeds) > 1:
            placed.append((positions[0], mean_row(rows, seeds)))
    placed.sort(key=lambda item: item[0])
    rows = [row for _, row in placed]
    found = [name for row in rows for name in row.scores]
    columns = tuple(dict.fromkeys([*paper.columns, *found]))
    if number == 'fig5':
        columns = tuple(sorted(columns, key=int))
    return Table(title, paper.note, paper.labels, columns, rows)


def make_unscored(left_out: Sequence[tuple[Entry, str]]) -> Table:
    """Make a table of the entries that stand in no other."""
    rows = []
    for entry, reason in left_out:
        labels = labels_of(entry.result, '')
        labels['method'] = label(entry.result, labels['method'])
        texts = tuple(labels[name] for name in LABELS)
        source = f'this run ({entry.path}): {reason}'
        rows.append(Row(texts, {}, source, True))
    return Table('not scored', '', LABELS, (), rows)


def merge(
    entries: Sequence[Entry], number: str
) -> list[tuple[dict[str, float | None], list[Entry]]]:
    """Put entries of one network into one row, unless they repeat a score.

    In a table of a series, a sweep's row has a network for each column.
    """
    rows: list[tuple[dict, list[Entry]]] = []
    for entry in entries:
        new, key = scores_in(entry, number), row_key(entry, number)
        for scores, own in rows:
            if row_key(own[0], number) == key and not scores.keys() & new:
                scores |= new
                own.append(entry)
                break
        else:
            rows.append((dict(new), [entry]))
    return rows


def row_key(entry: Entry, number: str) -> Hashable:
    """Return what the entries of a row have in common."""
    r = entry.result
    start = entry.start
    if entry.variant and number in SERIES:
        varying = {SERIES[number]: None}
        start = str(r.pretraining | varying), r.backbone, entry.seed
    return start, r.protocol if number == 'fig5' else ''


def mean_row(rows: Sequence[Row], seeds: Sequence[int]) -> Row:
    """Average rows of equal labels over the scores that all have."""
    columns: dict[str, list[float]] = {}
    for name in rows[0].scores:
        values = [row.scores.get(name) for row in rows]
        known = [value for value in values if value is not None]
        if len(known) == len(rows):
            columns[name] = known
    return Row(
        rows[0].labels,
        {name: mean(values) for name, values in columns.items()},
        'this run: mean and standard deviation of seeds '
        + ', '.join(map(str, sorted(seeds))),
        True,
        {name: stdev(values) for name, values in columns.items()},
    )


def labels_of(result: Result, number: str) -> dict[str, str]:
    """Return a result's labels, the method as the paper names it."""
    facts = result.pretraining
    mode = contrast_mode(result) if number == '7' else facts['method']
    return {
        'method': mode or '-',
        'backbone': result.backbone,
        'search layers': search_layers(result),
        'evaluation': PROTOCOLS[result.protocol],
        'batch': str(facts['batch_size'] or '-'),
        'epochs': str(facts['epochs'] or '-'),
    }


def place(labels: Mapping[str, str], paper: PaperTable) -> float:
    """Return where a row stands: behind the paper's last of its kind.

    Untrained networks come first, other methods last.
    """
    names = [name for name in ALIKE if name in paper.labels]
    own = [labels[name].lower() for name in names]
    alike = [
        i
        for i, (texts, _) in enumerate(paper.rows)
        if own
        == [
            texts[paper.labels.index(name)].rstrip('*').lower()
            for name in names
        ]
    ]
    if alike:
        return alike[-1] + 0.5
    if paper.rows and labels['method'] not in UNTRAINED:
        return len(paper.rows)
    return rank(labels['method']) - 10


def describe(own: Sequence[Entry], paper: PaperTable, repeated: bool) -> str:
    """Say where a row of ours comes from, and what is not the paper's.

    Args:
        own (Sequence[Entry]): The entries of the row.
        paper (PaperTable): The table that they stand in.
        repeated (bool): Whether the same network has further rows.
    """
    path, result = own[0].path, own[0].result
    files = ', '.join(str(entry.path) for entry in own)
    if result.checkpoint and not repeated:
        files = str(path.parent / result.checkpoint)
    if own[0].variant:  # the sweep's table lies beside its runs
        names = dict.fromkeys(entry.path.parent.name for entry in own)
        files = ', '.join(names)
    text = f'this run ({files})'
    if paper.rows:  # which forcing a table does not heed
        if 'backbone' not in paper.labels and result.backbone != 'ResNet-50':
            text += f', {result.backbone}'
        parts = dict.fromkeys(entry.part for entry in own if entry.part)
        text += ''.join(f', {part}' for part in parts)
    return text
