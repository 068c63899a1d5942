# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read detection runs, and set them beside the paper's Tables 3, 4 and 6."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .log_lines import Line, last_validation, schedule
from .origin import Origin, backbone_name, find_start, leaf_datasets
from .run_log import RunLog, Start, read_log, read_starts
from .tables import UNTRAINED, Row, Table, read_paper

PAPER_TABLES = read_paper('detection')
# Column -> its name in the log, a fraction of 1.
VOC_SCORES = {
    'AP^b': 'pascal_voc/mAP',
    'AP50^b': 'pascal_voc/AP50',
    'AP75^b': 'pascal_voc/AP75',
}
COCO_SCORES = {
    'AP^b': 'coco/bbox_mAP',
    'AP50^b': 'coco/bbox_mAP_50',
    'AP75^b': 'coco/bbox_mAP_75',
    'AP^s': 'coco/segm_mAP',
    'AP50^s': 'coco/segm_mAP_50',
    'AP75^s': 'coco/segm_mAP_75',
}
LABELS = ('initialisation', 'epochs')
# What the paper trained and tested on: the ends of the files' names.
DATA = {
    'voc': (
        {f'VOC{y}/ImageSets/Main/trainval.txt' for y in (2007, 2012)},
        {'VOC2007/ImageSets/Main/test.txt'},
    ),
    'coco': ({'instances_train2017.json'}, {'instances_val2017.json'}),
}
# Length of the training -> its name; iterations have 16 images.
COCO_SCHEDULES = {
    (12, 'epochs'): '1x',
    (24, 'epochs'): '2x',
    (90000, 'iterations'): '1x',
    (180000, 'iterations'): '2x',
}


class Run(NamedTuple):
    """A detection run.

    Attributes:
        source (str): The folder, and the checkpoint if it is a test.
        cfg (dict): The config.
        split (str): "val" or "test".
        start (Origin): What its backbone started from.
        scores (dict[str, float]): Percent by column.
        problem (str): Why it lacks scores, else "".
    """

    source: str
    cfg: dict
    split: str
    start: Origin
    scores: dict[str, float]
    problem: str = ''

    @property
    def detector(self) -> str:
        """The detector's name, e.g. "MaskRCNN ResNet-50 FPN"."""
        model = self.cfg['model']
        neck = model.get('neck') or {}
        words = [
            str(model.get('type')),
            backbone_name(model.get('backbone') or {}),
        ]
        if neck:
            parts = [neck] if isinstance(neck, Mapping) else neck
            words += [str(part.get('type')) for part in parts]
        elif 'shared_head' in (model.get('roi_head') or {}):
            words.append('C4')
        return ' '.join(words)

    @property
    def schedule(self) -> str:
        """The name of that length in COCO's tables, e.g. "1x"."""
        return COCO_SCHEDULES.get(schedule(self.cfg), '-')

    @property
    def length(self) -> str:
        """The length of its training, e.g. "12 epochs"."""
        return ' '.join(map(str, schedule(self.cfg)))

    @property
    def data_name(self) -> str:
        """The files that it was evaluated on."""
        return ', '.join(
            str(Path(leaf.get('data_root') or '', leaf.get('ann_file') or ''))
            for leaf in self.leaves(self.split)
        )

    def leaves(self, split: str) -> list[Mapping]:
        """Return the data sets of a split, without their wrappers."""
        loader = self.cfg.get(f'{split}_dataloader') or {}
        return [*leaf_datasets(loader.get('dataset'))]

    @property
    def paper_data(self) -> str | None:
        """ "coco" or "voc" if its data are exactly the paper's."""
        train, val = self.leaves('train'), self.leaves(self.split)
        for leaf in (*train, *val):
            count = len((leaf.get('metainfo') or {}).get('classes') or '')
            if leaf.get('indices') is not None or count not in (0, 20, 80):
                return None  # a part of it, or other classes
        names = [[str(x.get('ann_file')) for x in p] for p in (train, val)]
        for data, ends in DATA.items():
            if all(
                len(set(found)) == len(wanted)
                and all(any(n.endswith(e) for n in found) for e in wanted)
                for found, wanted in zip(names, ends, strict=True)
            ):
                return data
        return None

    @property
    def tables(self) -> list[str]:
        """The paper's tables of its data, detector and schedule."""
        data = self.paper_data
        if data == 'voc':
            return ['3'] if self.detector == 'FasterRCNN ResNet-50 C4' else []
        if data != 'coco' or self.detector != 'MaskRCNN ResNet-50 FPN':
            return []
        numbers = ('4', '6') if self.start.method in UNTRAINED else ('4',)
        if 'coco' in self.start.data.lower():
            numbers = ('6',)
        keys = [f'{number} {self.schedule}' for number in numbers]
        return [key for key in keys if key in PAPER_TABLES]


def read_run(folder: str | Path) -> Run:
    """Read a work directory; the last validation counts, not the best.

    Raises:
        ValueError: It is not the work directory of a detection run, or a
            file in it is damaged.
        OSError: A file cannot be read.
    """
    return describe_run(read_log(folder))


def describe_run(log: RunLog) -> Run:
    """Return what a detection run reached.

    Raises:
        ValueError: It is not a detection run, or its log is damaged.
    """
    tested = [start for start in log.starts if start.test]
    if tested and not log.trained[-1].lines:
        return _tested_run(log.folder, tested[-1])
    cfg = log.cfg
    if not cfg.get('val_evaluator'):
        raise ValueError(
            f'{str(log.folder)!r} is not a detection run: its config lacks '
            'val_evaluator'
        )
    for start in log.starts:
        if start.damaged:
            raise ValueError(
                f"'{start.folder}/vis_data/scalars.json' has {start.damaged} "
                'damaged lines (each must be a JSON object): remove them'
            )
    metrics, problem = last_validation(cfg, log.lines)
    scores = read_scores(metrics, cfg['val_evaluator'])
    if not (problem or scores):
        problem = 'its last validation lacks AP (was nothing detected?)'
    source, origin = str(log.folder), log.started_from
    return Run(source, cfg, 'val', origin, scores, problem)


def _tested_run(folder: Path, session: Start) -> Run:
    """Read a folder of tools/test.py: the trained run tells the rest."""
    cfg, origin = session.cfg, Origin()
    checkpoint = Path(str(cfg.get('load_from')))
    trained = [s.cfg for s in read_starts(checkpoint.parent) if s.lines]
    if trained:
        origin = find_start(trained)
        cfg = trained[-1] | dict(test_dataloader=cfg.get('test_dataloader'))
    scores = read_scores(session.test, session.cfg.get('test_evaluator'))
    problem = '' if scores else 'its test lacks AP'
    total, unit = schedule(cfg)
    reached = re.search(r'(epoch|iter)_(\d+)$', checkpoint.stem)
    if reached and int(reached[2]) < total:
        problem = f'unfinished: {checkpoint.name} of {total} {unit}'
        scores = {}
    source = f'{folder}, test of {checkpoint.name}'
    return Run(source, cfg, 'test', origin, scores, problem)


def read_scores(
    metrics: Line, evaluator: Mapping | Sequence | None
) -> dict[str, float]:
    """Return the scores that there are, in percent by column."""
    names = VOC_SCORES if 'pascal_voc/mAP' in metrics else COCO_SCORES
    scores = {
        column: 100 * metrics[name]
        for column, name in names.items()
        # COCO's API says -1, or NaN, where it has nothing.
        if metrics.get(name, -1) >= 0
    }
    if isinstance(evaluator, Mapping):
        evaluator = [evaluator]
    for part in evaluator or []:
        thresholds = part.get('iou_thrs', 0.5)
        if str(part.get('type')).endswith('VOCMetric') and (
            not isinstance(thresholds, list) or len(thresholds) < 10
        ):
            # mmdet's mAP is the mean over these, not over 0.50 to 0.95.
            scores.pop('AP^b', None)
    return scores


def arrange(runs: Sequence[Run], number: str | None = None) -> list[Table]:
    """Put the runs that have scores into tables, beside the paper's rows.

    A run gets the paper's rows only if data, detector and schedule are the
    paper's. Runs from random and supervised weights join every such table.

    Args:
        runs (Sequence[Run]): The runs.
        number (str, optional): The paper's table to take, for any detector;
            None finds it. Defaults to None.

    Raises:
        ValueError: A run has other data, or another schedule, than table
            ``number``.
    """
    groups: dict[str, list[Run]] = {}
    joining = []
    for run in runs:
        if run.problem:
            continue
        found = run.tables if number is None else [forced_table(run, number)]
        if len(found) > 1:
            joining.append((run, found))
        else:
            other = f'{run.detector}, {run.length}, on {run.data_name}'
            groups.setdefault(found[0] if found else other, []).append(run)
    for run, found in joining:
        opened = [key for key in found if key in groups]
        for key in opened or found[:1]:
            groups.setdefault(key, []).append(run)
    keys = sorted(groups, key=lambda key: (key not in PAPER_TABLES, key))
    return [make_table(key, groups[key]) for key in keys]


def make_table(key: str, runs: Sequence[Run]) -> Table:
    """Make a table of runs, in the order of the paper."""
    paper = PAPER_TABLES.get(key) or Table(
        key,
        'The paper lacks rows for this data, detector and schedule.',
        LABELS,
        tuple(COCO_SCORES),
        [],
    )
    placed = []
    for run in runs:
        source = f'this run ({run.source})'
        if paper.rows and key not in run.tables:
            source += f', {run.detector}'
        place = paper.place({LABELS[0]: run.start.method or '-'})
        placed.append((place, Row(labels_of(run), run.scores, source, True)))
    return paper.beside(placed)


def make_unscored(runs: Sequence[Run]) -> Table:
    """Make a table of the runs that lack scores."""
    rows = [
        Row(labels_of(run), {}, f'{run.source}: {run.problem}', True)
        for run in runs
        if run.problem
    ]
    return Table('not scored', '', LABELS, tuple(COCO_SCORES), rows)


def labels_of(run: Run) -> tuple[str, str]:
    """Return what a run started from, and for how long that was trained."""
    return run.start.label, str(run.start.epochs or '-')


def forced_table(run: Run, number: str) -> str:
    """Return table ``number`` for a run on its data.

    Raises:
        ValueError: The run has other data, or another schedule.
    """
    data = 'voc' if number == '3' else 'coco'
    key = number if data == 'voc' else f'{number} {run.schedule}'
    if run.paper_data != data:
        first = next(k for k in PAPER_TABLES if k.split()[0] == number)
        raise ValueError(
            f'--table {number}: {run.source} was evaluated on '
            f"{run.data_name}, and the paper's figures are for "
            f'{PAPER_TABLES[first].evaluations}'
        )
    if key not in PAPER_TABLES:
        raise ValueError(
            f'--table {number}: {run.source} was trained for {run.length}, '
            'which this table does not have (1x: 12 epochs, 2x: 24, only in '
            'Table 4)'
        )
    return key
