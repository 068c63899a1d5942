# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Set detection runs beside the rows of the SCFS paper's Tables 3, 4 and 6."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmscfs.datasets.checks import leaf_datasets

from ..tables import Row, Table, rank
from .paper_tables import PAPER_TABLES, PaperTable
from .runs import COCO_SCORES, Run, schedule

COLUMNS = tuple(COCO_SCORES)
VOC_TRAIN = {f'VOC{year}/ImageSets/Main/trainval.txt' for year in (2007, 2012)}
# Length of the training -> its name; iterations are of 16 images.
COCO_SCHEDULES = {
    (12, 'epochs'): '1x',
    (24, 'epochs'): '2x',
    (90000, 'iterations'): '1x',
    (180000, 'iterations'): '2x',
}
UNTRAINED = ('random', 'supervised')  # no self-supervised pre-training
LABELS = ('initialisation', 'epochs')


def arrange(runs: Sequence[Run], number: int | None = None) -> list[Table]:
    """Put the runs that have scores into tables, the paper's rows beside.

    A run gets the paper's rows only if data, detector and schedule are the
    paper's. Runs from random and supervised weights join every such table.

    Args:
        runs (Sequence[Run]): The runs.
        number (int, optional): The paper's table to take, for any detector;
            None finds it. Defaults to None.

    Raises:
        ValueError: A run is not on the data, or of no schedule, of table
            ``number``.
    """
    groups: dict[PaperTable | str, list[Run]] = {}
    joining = []
    for run in runs:
        if run.problem:
            continue
        if number is not None:
            groups.setdefault(forced_table(run, number), []).append(run)
            continue
        found = find_tables(run)
        if len(found) > 1:
            joining.append((run, found))
        else:
            key = found[0] if found else protocol(run)
            groups.setdefault(key, []).append(run)
    for run, found in joining:
        opened = [table for table in found if table in groups]
        for table in opened or found[:1]:
            groups.setdefault(table, []).append(run)
    papers = sorted(key for key in groups if isinstance(key, PaperTable))
    others = sorted(key for key in groups if isinstance(key, str))
    keys: list[PaperTable | str] = [*papers, *others]
    return [make_table(key, groups[key]) for key in keys]


def make_table(key: PaperTable | str, runs: Sequence[Run]) -> Table:
    """Make a table of runs, each behind the paper's last of its method."""
    rows: list[tuple[tuple[int, int], Row]] = []
    known: list[str] = []
    if isinstance(key, PaperTable):
        title, note = key.title, key.note
        for name, epochs, values in key.rows:
            scores = dict(zip(COLUMNS, values, strict=False))
            source = f'paper (Table {key.number})'
            place = (rank(name), len(rows))
            rows.append((place, Row((name, epochs), scores, source, False)))
            known.append(name.rstrip('*').lower())
    else:
        title = key
        note = (
            'No rows of the paper: it has none of this data, detector and '
            'schedule.'
        )
    for run in runs:
        source = f'this run ({run.source})'
        if isinstance(key, PaperTable) and key not in find_tables(run):
            source += f', {detector(run.cfg)}'
        start = run.start
        labels = start.label, start.epochs
        row = Row(labels, run.scores, source, True)
        method = start.method.lower()
        alike = [i for i, name in enumerate(known) if name == method]
        place = (rank(method), alike[-1] if alike else len(known))
        rows.append((place, row))
    rows.sort(key=lambda item: item[0])
    return Table(title, note, LABELS, COLUMNS, [row for _, row in rows])


def make_unscored(runs: Sequence[Run]) -> Table:
    """Make a table of the runs that have no scores."""
    rows = [
        Row(
            (run.start.label, run.start.epochs),
            {},
            f'this run ({run.source}): {run.problem}',
            True,
        )
        for run in runs
        if run.problem
    ]
    return Table('not scored', '', LABELS, COLUMNS, rows)


def find_tables(run: Run) -> list[PaperTable]:
    """Return the paper's tables of a run's data, detector and schedule."""
    data = paper_data(run)
    if data == 'voc':
        same = detector(run.cfg) == 'FasterRCNN ResNet-50 C4'
        return [PAPER_TABLES[3, '']] if same else []
    if data != 'coco' or detector(run.cfg) != 'MaskRCNN ResNet-50 FPN':
        return []
    name = COCO_SCHEDULES.get(schedule(run.cfg), '')
    numbers = (4, 6) if run.start.method in UNTRAINED else (4,)
    if 'coco' in run.start.data.lower():
        numbers = (6,)
    return [
        PAPER_TABLES[n, name] for n in numbers if (n, name) in PAPER_TABLES
    ]


def forced_table(run: Run, number: int) -> PaperTable:
    """Return table ``number`` for a run on its data."""
    data = {3: 'voc', 4: 'coco', 6: 'coco'}[number]
    if paper_data(run) != data:
        raise ValueError(
            f'--table {number}: {run.source} is of {data_name(run)}, and the '
            "paper's figures are of "
            + (
                'VOC trainval07+12 and test2007'
                if data == 'voc'
                else 'COCO train2017 and val2017'
            )
        )
    name = '' if data == 'voc' else COCO_SCHEDULES.get(schedule(run.cfg))
    if name is None or (number, name) not in PAPER_TABLES:
        raise ValueError(
            f'--table {number}: {run.source} was trained for '
            f'{" ".join(map(str, schedule(run.cfg)))}, which is no schedule '
            'of this table (1x: 12 epochs, 2x: 24, only in Table 4)'
        )
    return PAPER_TABLES[number, name]


def paper_data(run: Run) -> str | None:
    """Return "coco" or "voc" if a run's data are exactly the paper's."""
    train, val = data_leaves(run, 'train'), data_leaves(run, run.split)
    for leaf in (*train, *val):
        count = len((leaf.get('metainfo') or {}).get('classes') or '')
        if leaf.get('indices') is not None or count not in (0, 20, 80):
            return None  # a part of it, or other classes
    names = [
        {str(leaf.get('ann_file')) for leaf in part} for part in (train, val)
    ]
    if run.metric == 'pascal_voc' and _end_in(
        names, (VOC_TRAIN, {'VOC2007/ImageSets/Main/test.txt'})
    ):
        return 'voc'
    coco = ({f'instances_{split}2017.json'} for split in ('train', 'val'))
    return 'coco' if _end_in(names, tuple(coco)) else None


def _end_in(names: Sequence[set[str]], ends: Sequence[set[str]]) -> bool:
    """Tell whether files are, below any folder, those of ``ends``."""
    return all(
        len(found) == len(wanted)
        and all(any(n.endswith(end) for n in found) for end in wanted)
        for found, wanted in zip(names, ends, strict=True)
    )


def data_leaves(run: Run, split: str) -> list[Mapping]:
    """Return the data sets of a split, without their wrappers."""
    loader = run.cfg.get(f'{split}_dataloader') or {}
    return [leaf for _, leaf in leaf_datasets(loader.get('dataset'), '')]


def data_name(run: Run) -> str:
    """Return what a run was evaluated on."""
    return ', '.join(
        str(Path(leaf.get('data_root') or '', leaf.get('ann_file') or ''))
        for leaf in data_leaves(run, run.split)
    )


def detector(cfg: Mapping) -> str:
    """Return a detector's name, e.g. "MaskRCNN ResNet-50 FPN"."""
    model = cfg['model']
    backbone = model.get('backbone') or {}
    neck = model.get('neck') or {}
    words = [str(model.get('type')), str(backbone.get('type'))]
    if 'depth' in backbone:
        words[1] += f'-{backbone["depth"]}'
    if neck:
        parts = [neck] if isinstance(neck, Mapping) else neck
        words += [str(part.get('type')) for part in parts]
    elif 'shared_head' in (model.get('roi_head') or {}):
        words.append('C4')
    return ' '.join(words)


def protocol(run: Run) -> str:
    """Return what runs must share to stand in one table."""
    length = ' '.join(map(str, schedule(run.cfg)))
    return f'{detector(run.cfg)}, {length}, on {data_name(run)}'
