# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Arrange results of evaluations beside the paper's tables."""

from collections.abc import Hashable, Mapping, Sequence
from statistics import mean, stdev

from .entries import Entry
from .result_files import PROTOCOLS
from .tables import Row, Table, read_paper

PAPER_TABLES = read_paper('classification')
LABELS = ('method', 'backbone', 'batch', 'epochs')
SMALL_SETS = {
    'cifar10': 'CIFAR-10',
    'cifar100': 'CIFAR-100',
    'cub200': 'CUB-200',
    'cars': 'Cars',
    'aircraft': 'Aircraft',
    'pets': 'Pets',
}
ABLATED = ('ResNet-101', 'ViT-S-16', 'ViT-B-16')  # in Table 10
# Tables whose columns are pre-trainings that differ in one setting.
SERIES = {'9': 'local_scale', 'fig5': 'num_local'}
PER_DATA = ('', 'fig4', 'fig5')  # each data set has its own of these

Group = tuple[str, str]  # the paper's number, "" if none, and the data set


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
        ValueError: None of the results belongs to table ``number``.
    """
    left_out = [(entry, entry.problem) for entry in entries if entry.problem]
    scored = [entry for entry in entries if not entry.problem]
    evaluations = PAPER_TABLES[number].evaluations if number else ''
    fitting: list[tuple[Entry, list[Group]]] = []
    for entry in scored:
        if number is None:
            found = [n for n in PAPER_TABLES if belongs(entry, n)] or ['']
        elif scores_in(entry, number):
            found = [number]
        else:
            left_out.append((entry, f'--table {number} has {evaluations}'))
            continue
        fitting.append((entry, [group_of(entry, name) for name in found]))
    if scored and not fitting:
        first = scored[0]
        raise ValueError(
            f'--table {number} has {evaluations}; none of the results is of '
            f'these ({first.path}: {first.result.protocol} on '
            f'{first.result.dataset})'
        )
    # The paper's default recipe stands in several of its tables: it opens
    # the first, and joins those that a varied recipe opened.
    opened = [keys[0] for _, keys in fitting if len(keys) == 1]
    groups: dict[Group, list[Entry]] = {}
    for entry, keys in fitting:
        taken = [keys[0], *(key for key in keys[1:] if key in opened)]
        if number is None and scores_in(entry, 'fig4'):
            taken.append(group_of(entry, 'fig4'))
        for key in taken:
            groups.setdefault(key, []).append(entry)
    order = [*PAPER_TABLES, '']
    tables = sorted(
        groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
    )
    return [make_table(*item) for item in tables], left_out


def make_unscored(left_out: Sequence[tuple[Entry, str]]) -> Table:
    """Make a table of the entries that :func:`arrange` left out."""
    rows = []
    for entry, reason in left_out:
        labels = labels_of(entry, '')
        labels['method'] = entry.label(labels['method'])
        texts = tuple(labels[name] for name in LABELS)
        rows.append(Row(texts, {}, f'{entry.path}: {reason}', True))
    return Table('not scored', '', LABELS, (), rows)


def group_of(entry: Entry, number: str) -> Group:
    """Return a table of an entry: the paper's number, and the data set."""
    if number not in PER_DATA:
        return number, ''
    data = entry.result.dataset
    return number, f'{data}, {entry.part}' if entry.part else data


def scores_in(entry: Entry, number: str) -> Mapping[str, float | None]:
    """Return an entry's scores by column of a table; {} if it has others."""
    r = entry.result
    if number == 'fig4':
        layers = entry.by_layer
        return layers if r.protocol == 'knn' and len(layers) > 1 else {}
    if number == '2':
        share = r.protocol.removeprefix('semi-')
        is_semi = r.dataset == 'in1k' and share != r.protocol
        return {
            f'top-{top} {share}': r.metrics.get(f'accuracy/top{top}')
            for top in (1, 5)
            if is_semi
        }
    usual = {'knn': 'k-NN', 'linear': 'LP'}.get(r.protocol)
    if number == '':
        column: str | None = PROTOCOLS[r.protocol].column
    elif number == '5':
        tuned = r.protocol == 'finetune'
        column = SMALL_SETS.get(r.dataset) if tuned else None
    elif number == 'fig5':
        column = entry.num_local if usual else None
    elif r.dataset != ('in1k' if number == '1' else 'in100'):
        column = None
    elif number == '9':
        column = entry.local_scale if usual == 'LP' else None
    else:
        column = usual
    return {column: entry.score} if column else {}


def belongs(entry: Entry, number: str) -> bool:
    """Tell whether the paper's rows may stand beside an entry."""
    r, varied = entry.result, entry.varied
    if number == 'fig4' or entry.part or not scores_in(entry, number):
        return False
    if number == '10':
        return r.backbone in ABLATED and not varied
    if r.backbone != 'ResNet-50':
        return False
    if number == '7':
        facts = r.pretraining
        return (
            varied <= {'search'}
            or (varied == {'num_local'} and facts['num_local'] == 0)
            or (varied == {'search_views'} and facts['search_views'] == 'none')
        )
    if number == '8':
        layers = bool(r.pretraining.get('search_layers'))
        return layers and varied <= {'search_layers'}
    if number == 'fig5' and r.dataset != 'in100':
        return False
    return number not in SERIES or varied <= {SERIES[number]}


def make_table(group: Group, entries: Sequence[Entry]) -> Table:
    """Make a table of entries, in the order of the paper."""
    number, data = group
    paper = PAPER_TABLES.get(number) or Table(
        data,
        'The paper lacks rows for it. Top-1, except for mAP; of Aircraft '
        'and Pets the mean over classes where a classifier was trained.',
        LABELS,
        tuple(protocol.column for protocol in PROTOCOLS.values()),
        [],
    )
    merged = merge(entries, number)
    starts = [own[0].start for _, own in merged]
    repeats: dict[Hashable, list[tuple[float, Row, int | None]]] = {}
    for i, (scores, own) in enumerate(merged):
        entry = own[0]
        labels = labels_of(entry, number)
        place = paper.place(labels)
        if number in ('', 'fig4'):
            labels['method'] = entry.contrast_mode
        labels['method'] = entry.label(labels['method'])
        texts = tuple(labels[name] for name in paper.labels)
        source = describe(own, paper, starts.count(entry.start) > 1)
        key = texts, '' if number in SERIES else entry.variant
        repeats.setdefault(key if entry.variant else i, []).append(
            (place, Row(texts, scores, source, True), entry.seed)
        )
    placed: list[tuple[float, Row]] = []
    for group_rows in repeats.values():
        places, rows, seeds = zip(*group_rows, strict=True)
        placed += zip(places, rows, strict=True)
        if len(set(seeds)) == len(seeds) > 1:
            placed.append((places[0], mean_row(rows, seeds)))
    title = f'{paper.title}, {data}' if number and data else ''
    table = paper.beside(placed, title)
    if number == 'fig5':
        columns = tuple(sorted(table.all_columns, key=int))
        table = table._replace(all_columns=columns)
    return table


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
        known = [v for row in rows if (v := row.scores.get(name)) is not None]
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


def labels_of(entry: Entry, number: str) -> dict[str, str]:
    """Return an entry's labels, the method as the paper names it."""
    facts = entry.result.pretraining
    mode = entry.contrast_mode if number == '7' else facts['method']
    return {
        'method': mode or '-',
        'backbone': entry.result.backbone,
        'search layers': entry.search_layers,
        'evaluation': PROTOCOLS[entry.result.protocol].column,
        'batch': str(facts['batch_size'] or '-'),
        'epochs': str(facts['epochs'] or '-'),
    }


def describe(own: Sequence[Entry], paper: Table, repeated: bool) -> str:
    """Say where a row comes from, and how it differs from the paper's.

    Args:
        own (Sequence[Entry]): The entries of the row.
        paper (Table): The paper's, that they stand in.
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
    if paper.rows:  # a forced table takes any backbone and part
        if 'backbone' not in paper.labels and result.backbone != 'ResNet-50':
            text += f', {result.backbone}'
        parts = dict.fromkeys(entry.part for entry in own if entry.part)
        text += ''.join(f', {part}' for part in parts)
    return text
