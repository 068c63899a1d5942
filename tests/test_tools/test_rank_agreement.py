# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of rank_agreement.py."""

import csv
import json
import math
from itertools import combinations
from pathlib import Path

import pytest
from commands import load_tool

from mmscfs.results.tables import Row, Summary, Table

# By run and epoch: the detector's AP with two seeds, and figures.
RUNS = {
    'a': {1: (0.0, 2.0), 2: (1.0, 3.0), 3: (2.0, 4.0), 4: (3.0, 5.0)},
    'b': {1: (6.0, 8.0), 2: (5.0, 7.0), 3: (8.0, 8.0), 4: (9.0, 9.0)},
}
TOP1 = {'a': (10, 30, 20, 40), 'b': (80, 70, 60, 50)}
ALPHA = {'a': (1.8, 1.6, 0.6, 0.8), 'b': (0.7, 0.6, 0.75, 1.2)}


def name(run, epoch):
    return f'work_dirs/{run}/epoch_{epoch}.pth'


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [
        dict(start='x', images=48, seed=seed, checkpoint=name(run, k), AP=ap)
        for run, own in RUNS.items()
        for k, aps in own.items()
        for seed, ap in enumerate(aps)
    ]
    runs.append(dict(start='r', images=48, seed=0, checkpoint=None, AP=99.0))
    Path('label_curve.json').write_text(json.dumps(dict(runs=runs)))
    return load_tool('analysis_tools/rank_agreement')


def write(file, title, labels, column, values, digits):
    """Write a table as box_probe.py and score_checkpoints.py do."""
    rows = [
        Row(
            (f'epoch_{k}', *labels),
            {column: v},
            name(run, k),
            True,
            {},
            digits,
        )
        for run, own in values.items()
        for k, v in enumerate(own, 1)
    ]
    heads = ('checkpoint', 'network', 'layers')[: 1 + len(labels)]
    table = Table(title, '', heads, (column, 'absent'), rows)
    Summary('', '', [table], ['torn.pth: torn']).write(Path(file))


def read(title):
    with open('out/rank_agreement.csv', newline='') as lines:
        return [row for row in csv.DictReader(lines) if row['table'] == title]


def test_tau_and_intervals(tool, capsys):
    write('boxes.md', 'Box probe', ('teacher', 'all'), 'top1', TOP1, 1)
    write('scores.md', 'layer3', (), 'alpha-ReQ', ALPHA, 3)
    figures = ('--figures', 'boxes.csv', 'scores.csv')
    assert tool.main(['label_curve.json', *figures, '--out', 'out']) == 0
    box, alpha = sorted(read('Within runs'), key=lambda row: row['source'])
    assert (box['figure'], box['layers']) == ('top1', 'all')
    assert (alpha['figure'], alpha['layers']) == ('alpha-ReQ', 'layer3')
    assert box['images'] == '48'
    assert box['pre-trainings'] == '2'
    # a: 5 pairs of 6 in order. b: AP 7, 6, 8, 9, 1 pair of 6 in order. The
    # quantile of one degree of freedom is 12.706.
    first, second = 4 / 6, -4 / 6
    half = 12.7062 * abs(first - second) / 2
    assert box['tau'] == f'{(first + second) / 2:.2f} ± {half:.2f}'
    # Distances from 1: a .8, .6, .4, .2 (in order), b .3, .4, .25, .2.
    assert alpha['tau'] == '1.00 ± 0.00'

    goodness = [-abs(v - 1) for own in ALPHA.values() for v in own]
    aps = [sum(ap) / 2 for own in RUNS.values() for ap in own.values()]
    pairs = [*combinations(zip(goodness, aps, strict=True), 2)]
    signs = [(x[0] - y[0]) * (x[1] - y[1]) for x, y in pairs]
    # Equal: .2 of a and of b, .4 of a and of b, in 26 pairs of 28.
    assert sum(abs(sign) < 1e-9 for sign in signs) == 2
    kept = [sign for sign in signs if abs(sign) > 1e-9]
    value = sum(math.copysign(1, sign) for sign in kept) / math.sqrt(26 * 28)
    (row,) = (
        r for r in read('Over all checkpoints') if 'alpha' in r['figure']
    )
    assert row['checkpoints'] == '8'
    assert row['tau'] == f'{value:.2f}'
    width = 1.96 * math.sqrt(0.437 / 4)
    ends = [math.tanh(math.atanh(value) + s * width) for s in (-1, 1)]
    assert [row['low'], row['high']] == [f'{end:.2f}' for end in ends]
    assert 'Within runs' in capsys.readouterr().out


def test_dse_is_for_one_run(tool):
    write('scores.md', 'layer3', (), 'DSE', TOP1, 3)
    words = ['label_curve.json', '--figures', 'scores.csv', '--out', 'out']
    assert tool.main(words) == 0
    assert len(read('Within runs')) == 1
    assert read('Over all checkpoints') == []


def test_what_cannot_be_compared(tool, capsys):
    words = ['label_curve.json', '--figures', 'own.csv', '--out', 'out']
    Path('own.csv').write_text('image,label\n1,2\n')
    assert tool.main(words) == 2
    assert 'own.csv is not a table of checkpoints' in capsys.readouterr().err
    few = {run: own[:2] for run, own in TOP1.items()}
    write('own.md', 'layer3', (), 'RankMe', few, 3)
    assert tool.main(words) == 2
    assert 'at least 3 checkpoints of a run' in capsys.readouterr().err
    Path('label_curve.json').write_text('{"steps": {}}')
    assert tool.main(words) == 2
    assert 'label_curve.json has no runs' in capsys.readouterr().err
    assert not Path('out').exists()
