#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See whether a figure ranks checkpoints as detectors do.

Takes the detectors that tools/label_curve.py has trained from checkpoints, and
figures of the same checkpoints: the CSV files of tools/box_probe.py (with
labels) and tools/score_checkpoints.py (without). Kendall's tau-b is 1 if a
figure puts checkpoints in the order of the detectors' box AP, 0 if by chance,
and -1 if in the opposite order. Two tables have it for each figure, layer and
number of annotated images: within runs, of the checkpoints of one pre-training
(mean over pre-trainings, with half the width of Student's 95 % interval), and
over all checkpoints, with an interval (Fieller, Hartley and Pearson 1957:
atanh(tau) has the variance 0.437 / (checkpoints - 4)). It treats checkpoints
as independent; those of one run are not. Noise in AP brings each tau nearer
to 0.
"""

import argparse
import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded
from command_line import add_out_folder, make_parser
from command_paths import file

if TYPE_CHECKING:
    from mmscfs.results.tables import Table

EXAMPLES = """
examples:
  # detectors from four checkpoints of two pre-trainings each
  python tools/label_curve.py my_det.py --images 200 --seeds 0 1 2 --starts \\
      a2=work_dirs/a/epoch_20.pth a4=work_dirs/a/epoch_40.pth \\
      a6=work_dirs/a/epoch_60.pth a8=work_dirs/a/epoch_80.pth \\
      b2=work_dirs/b/epoch_20.pth b4=work_dirs/b/epoch_40.pth \\
      b6=work_dirs/b/epoch_60.pth b8=work_dirs/b/epoch_80.pth
  python tools/box_probe.py my_det.py --pretrained work_dirs/[ab]/epoch_*.pth
  python tools/score_checkpoints.py work_dirs/a
  python tools/score_checkpoints.py work_dirs/b
  python tools/analysis_tools/rank_agreement.py \\
      work_dirs/label_curve_my_det/label_curve.json --figures \\
      work_dirs/box_probe/boxes.csv work_dirs/[ab]/checkpoint_scores.csv
"""
LABELS = {'table', 'checkpoint', 'network', 'layers', 'source'}
# Figures of which not the highest is the best.
GOODNESS = {
    'alpha-ReQ': lambda value: -abs(value - 1),
    'M_intra': lambda value: -value,
}
WITHIN_A_RUN = 'DSE'  # is normalized over a run's checkpoints
LEAST = 3  # checkpoints of a run that are worth a tau
Figure = tuple[str, str, str]  # name, layers, file
# Of atanh(tau) of n checkpoints the variance is VARIANCE / (n - FEWEST).
VARIANCE, FEWEST = 0.437, 4
QUANTILE = 1.959964  # of 95 % of a normal distribution, at both sides
WITHIN = 'Mean over pre-trainings, ± half of its 95 % confidence interval'
OVER_ALL = 'With the ends of its 95 % confidence interval'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'curve', type=file, metavar='JSON', help="label_curve.py's record"
    )
    parser.add_argument(
        '--figures',
        nargs='+',
        type=file,
        required=True,
        metavar='CSV',
        help='boxes.csv and checkpoint_scores.csv, whose checkpoints have the '
        'same paths as in JSON',
    )
    add_out_folder(parser, 'rank_agreement', 'work_dirs/rank_agreement')
    return parser.parse_args(argv)


def read_detectors(path: Path) -> dict[int, dict[str, float]]:
    """Return the mean box AP of each checkpoint, by number of images.

    Raises:
        ValueError: The file is not a record of label_curve.py.
    """
    found = defaultdict(lambda: defaultdict(list))
    try:
        for run in json.loads(path.read_text())['runs']:
            if run['checkpoint']:
                found[run['images']][run['checkpoint']].append(run['AP'])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} has no runs ({error}): name the label_curve.json of '
            'tools/label_curve.py'
        ) from error
    return {
        images: {path: mean(scores) for path, scores in own.items()}
        for images, own in sorted(found.items())
    }


def read_figures(path: Path) -> dict[Figure, dict[str, float]]:
    """Return how good each checkpoint is by each figure.

    Raises:
        ValueError: The file is not a table of checkpoints.
    """
    found = defaultdict(dict)
    with path.open(newline='') as lines:
        for row in csv.DictReader(lines):
            if not {'table', 'checkpoint', 'source'} <= row.keys():
                raise ValueError(
                    f'{path} is not a table of checkpoints: name boxes.csv of '
                    'tools/box_probe.py, or checkpoint_scores.csv of '
                    'tools/score_checkpoints.py'
                )
            layers = row.get('layers') or row['table']
            for name in row.keys() - LABELS if row['checkpoint'] else ():
                if row[name] not in ('', '-'):
                    goodness = GOODNESS.get(name, float)
                    value = goodness(float(row[name]))
                    found[name, layers, path.name][row['source']] = value
    return found


def tau(values: Sequence[float], scores: Sequence[float]) -> float:
    """Return Kendall's tau-b, NaN if all of either are equal."""
    from scipy.stats import kendalltau

    return float(kendalltau(values, scores).statistic)


def within_runs(
    values: Mapping[str, float], scores: Mapping[str, float]
) -> list[float]:
    """Return tau of each pre-training that has enough checkpoints."""
    runs = defaultdict(list)
    for path in values.keys() & scores.keys():
        runs[Path(path).parent].append((values[path], scores[path]))
    found = [
        tau(*zip(*pairs, strict=True))
        for pairs in runs.values()
        if len(pairs) >= LEAST
    ]
    return [value for value in found if math.isfinite(value)]


def over_all(
    values: Mapping[str, float], scores: Mapping[str, float]
) -> tuple[float, float, float, int] | None:
    """Return tau, the ends of its interval, and the number of checkpoints.

    None if these are too few for an interval, or all alike.
    """
    paths = values.keys() & scores.keys()
    if len(paths) <= FEWEST:
        return None
    value = tau([values[p] for p in paths], [scores[p] for p in paths])
    if math.isnan(value):
        return None
    middle = math.atanh(value) if abs(value) < 1 else value * math.inf
    half = QUANTILE * math.sqrt(VARIANCE / (len(paths) - FEWEST))
    ends = math.tanh(middle - half), math.tanh(middle + half)
    return value, *ends, len(paths)


def make_tables(
    detectors: Mapping[int, Mapping[str, float]],
    figures: Mapping[Figure, Mapping[str, float]],
) -> list['Table']:
    """Return the tables, the highest tau first."""
    from mmscfs.results.label_curves import interval
    from mmscfs.results.tables import Row, Table

    within, whole = [], []
    for (figure, values), (images, scores) in product(
        figures.items(), detectors.items()
    ):
        *what, source = figure
        labels = (*what, str(images))
        if runs := within_runs(values, scores):
            part = interval(runs)
            row = Row(
                (*labels, str(part.seeds)),
                dict(tau=part.mean),
                source,
                True,
                {} if part.half is None else dict(tau=part.half),
                digits=2,
            )
            within.append(row)
        if what[0] != WITHIN_A_RUN and (found := over_all(values, scores)):
            middle, low, high, count = found
            row = Row(
                (*labels, str(count)),
                dict(tau=middle, low=low, high=high),
                source,
                True,
                digits=2,
            )
            whole.append(row)
    parts = (
        ('Within runs', WITHIN, 'pre-trainings', within),
        ('Over all checkpoints', OVER_ALL, 'checkpoints', whole),
    )
    return [
        Table(
            title,
            note,
            ('figure', 'layers', 'images', unit),
            ('tau', 'low', 'high'),
            sorted(rows, key=lambda row: -row.scores['tau']),
        )
        for title, note, unit, rows in parts
        if rows
    ]


@commanded('nothing is written')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: there is nothing to compare.
    """
    args = parse_args(argv)
    detectors = read_detectors(args.curve)
    figures: dict[Figure, dict[str, float]] = defaultdict(dict)
    for path in args.figures:
        for figure, values in read_figures(path).items():
            figures[figure].update(values)

    from mmscfs.results.tables import Summary

    tables = make_tables(detectors, figures)
    if not tables:
        trained = sorted({p for own in detectors.values() for p in own})
        scored = sorted({p for own in figures.values() for p in own})
        raise ValueError(
            f'{args.curve} has detectors of {trained[:LEAST]}, and --figures '
            f'are of {scored[:LEAST]}: at least {LEAST} checkpoints of a run '
            f'must be in both, or {FEWEST + 1} of several, by the same paths'
        )
    note = "Kendall's tau-b of figures and box AP of detectors."
    summary = Summary('Rank agreement', note, tables, [])
    return summary.publish(args.out / 'rank_agreement.md')


if __name__ == '__main__':
    raise SystemExit(main())
