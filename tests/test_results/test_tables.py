# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The paper's figures, where rows stand beside them, and what is written."""

import csv
import os
import re
from pathlib import Path

import pytest

from mmscfs.results.tables import Row, Summary, Table, read_paper

PAPER = read_paper('classification') | {
    f'detection {name}': table
    for name, table in read_paper('detection').items()
}


@pytest.mark.parametrize(
    ('number', 'labels', 'scores'),
    [
        ('1', 'Supervised 256 100', '76.2 74.8'),
        ('1', 'SimSiam 256 200', '70.0 -'),
        ('1', 'MoCo v3 4096 1000', '74.6 -'),
        ('1', 'DINO* 256 200', '73.0 64.0'),
        ('1', 'DINO 4080 800', '75.3 67.5'),
        ('1', 'SCFS 256 200', '73.9 65.5'),
        ('1', 'SCFS 1024 800', '75.7 68.5'),
        ('2', 'Supervised 256 90', '25.4 56.4 48.4 80.4'),
        ('2', 'SCFS 1024 800', '54.3 70.5 78.6 90.2'),
        ('5', 'BYOL - -', '97.8 86.1 - 91.6 88.1 91.7'),
        ('5', 'SCFS - -', '97.8 86.7 82.7 91.6 88.5 91.9'),
        ('7', 'ROI Crop 256 200', '83.9 88.1'),
        ('7', 'SCFS w/o MC 256 200', '79.7 86.3'),
        ('8', 'SCFS Res2, Res3 256 200', '84.3 87.5'),
        ('9', 'SCFS 256 200', '89.2 88.7 87.0 83.1'),
        ('10', 'DINO ViT-B-16 256 200', '76.2 80.7'),
        ('detection 3', 'Scratch -', '33.8 60.2 33.1'),
        ('detection 3', 'SCFS 800', '57.4 83.0 63.6'),
        ('detection 4 1x', 'SCFS 800', '40.5 61.8 44.0 36.7 58.8 39.2'),
        ('detection 4 2x', 'SwAV 400', '42.3 62.8 46.3 38.2 60.0 41.0'),
        ('detection 6 1x', 'UniVIP -', '40.8 - - 36.8 - -'),
        ('detection 6 1x', 'SCFS -', '40.9 61.6 44.4 36.9 58.4 39.5'),
    ],
)
def test_figures_of_the_paper(number, labels, scores):
    values = [None if v == '-' else float(v) for v in scores.split()]
    rows = {' '.join(row.labels): row for row in PAPER[number].rows}
    assert [*rows[labels].scores.values()] == values


def test_paper_tables_are_whole():
    # Table 4 has 15 methods: SwAV lacks 1x; DSC, DetCo and ORL lack 2x.
    counts = {name: len(table.rows) for name, table in PAPER.items()}
    assert counts == {
        **{'1': 26, '2': 6, '5': 5, '7': 6, '8': 3, '9': 2, '10': 6},
        **{'fig4': 0, 'fig5': 0, 'detection 3': 7},
        **{'detection 4 1x': 14, 'detection 4 2x': 12, 'detection 6 1x': 10},
    }
    for name, table in PAPER.items():
        for row in table.rows:
            assert len(row.labels) == len(table.labels)
            known = [v for v in row.scores.values() if v is not None]
            if 'detection' in name and len(known) > 2:
                assert max(known[:3]) == known[1]  # AP50
        if name in ('1', '2', '7', '8', '9'):  # where SCFS is the best
            rivals = table.rows[name == '1' :]  # not the supervised
            for column in table.columns:
                best = max(rivals, key=lambda r: r.scores[column] or 0)
                assert best.labels[0] == 'SCFS'


@pytest.mark.parametrize(
    ('table', 'method', 'above'),
    [
        ('1', 'random', None),
        ('1', 'SimCLR', 'SimCLR 4096 1000'),
        ('1', 'SwAV', 'SwAV 256 200'),
        ('1', 'MoCo v2', 'MoCo v2 256 200'),
        ('1', 'MoCo v3', 'MoCo v3 4096 1000'),
        ('1', 'MoCo v2 + CO2', 'SCFS 1024 800'),  # not in the table: last
        ('detection 4 1x', 'random', 'Scratch -'),
        ('detection 4 1x', 'MoCo', 'MoCo 200'),
        ('detection 4 1x', 'DenseCL', 'DenseCL 200'),
        ('detection 4 1x', 'SimSiam', 'SCFS 800'),
        ('detection 6 1x', 'supervised', 'Supervised* -'),
    ],
)
def test_a_row_stands_behind_the_last_of_its_kind(table, method, above):
    paper = PAPER[table]
    place = paper.place({paper.labels[0]: method})
    ours = Row((method, *'-' * (len(paper.labels) - 1)), {}, 'mine', True)
    rows = paper.beside([(place, ours)]).rows
    at = rows.index(ours)
    assert len(rows) == len(paper.rows) + 1
    assert above == (' '.join(rows[at - 1].labels) if at else None)


def summary(scored=True):
    rows = [
        Row(('DINO*', '256'), {'LP': 73.0, 'k-NN': None}, 'paper', False),
        Row(('a|b', '-'), {'LP': 70.04}, 'this run', True, {'LP': 0.26}),
    ]
    table = Table('One', 'Note.', ('method', 'batch'), ('LP', 'k-NN'), rows)
    bad = Row(('mine',), {}, 'x.json: torn', True)
    unscored = Table('not scored', '', ('method',), ('AP',), [bad])
    return Summary('All', 'Percent.', [table] * scored, unscored)


def test_written_files(tmp_path, capsys):
    path = tmp_path / 'out/all.md'
    assert summary().publish(path) == 0
    assert path.read_text().splitlines() == [
        *('# All', '', 'Percent.', '', '## One', '', 'Note.', ''),
        '| method | batch | LP | source |',
        '| :-- | --: | --: | :-- |',
        '| DINO\\* | 256 | 73.0 | paper |',
        '| **a\\|b** | **-** | **70.0 ± 0.3** | **this run** |',
        *('', '## Not scored', '', '- x.json: torn'),
    ]
    with open(path.with_suffix('.csv'), newline='') as file:
        assert [*csv.reader(file)] == [
            ['table', 'method', 'batch', 'LP', 'k-NN', 'AP', 'source'],
            ['One', 'DINO*', '256', '73.0', '-', '-', 'paper'],
            ['One', 'a|b', '-', '70.0 ± 0.3', '-', '-', 'this run'],
            ['not scored', 'mine', '', '-', '-', '-', 'x.json: torn'],
        ]
    printed = capsys.readouterr().out
    assert re.search(r'DINO\* +│ +256 │ +73\.0 │ paper', printed)
    assert 'not scored: x.json: torn\nPercent.\nwritten: ' in printed
    assert sorted(os.listdir(path.parent)) == ['all.csv', 'all.md']


def test_a_full_disk_leaves_the_files_of_before(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'all.md'
    assert summary(scored=False).publish(path) == 0
    before = path.read_text()

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    capsys.readouterr()
    assert summary().publish(path) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f'error: --out {tmp_path}: ')
    assert printed.out == ''
    assert path.read_text() == before
    assert sorted(os.listdir(tmp_path)) == ['all.csv', 'all.md']


def test_a_file_in_place_of_the_folder(tmp_path, capsys):
    Path(tmp_path, 'out').write_text('mine')
    assert summary().publish(tmp_path / 'out/all.md') == 1
    assert f'--out {tmp_path}/out' in capsys.readouterr().err
