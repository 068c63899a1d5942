# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What tables print and write."""

import csv
import os
import re

from mmscfs.results.tables import Row, Summary, Table


def summary(scored=True):
    rows = [
        Row(('DINO*', '256'), {'LP': 73.0, 'k-NN': None}, 'paper', False),
        Row(('a|b', '-'), {'LP': 70.04}, 'this run', True, {'LP': 0.26}),
    ]
    table = Table('One', 'Note.', ('method', 'batch'), ('LP', 'k-NN'), rows)
    return Summary('All', 'Percent.', [table] * scored, ['x.json: torn'])


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
            ['table', 'method', 'batch', 'LP', 'k-NN', 'source'],
            ['One', 'DINO*', '256', '73.0', '-', 'paper'],
            ['One', 'a|b', '-', '70.0 ± 0.3', '-', 'this run'],
            ['not scored', '', '', '', '', 'x.json: torn'],
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
