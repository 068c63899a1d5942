# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import importlib
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
SMALL = ['--bank', '300', '--channels', '32', '--rounds', '1', '--k', '5']


@pytest.fixture
def knn(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module('knn')


def test_searches_are_measured_and_agree(knn, tmp_path, capsys):
    arguments = [*SMALL, '--classes', '10', '--folder', str(tmp_path)]
    assert knn.main([*arguments, '--queries', '40', '7']) == 0
    printed = capsys.readouterr().out
    for number in (40, 7):
        table = printed[printed.index(f'{number} of 50000 queries') :]
        for row in ('ours', 'sorted by chunks', 'largest, all at once'):
            assert row in table
    # What float32 cannot tell apart may be in another order.
    differing = re.findall(
        r'(\d+) of (\d+) neighbours.* by (\S+) at most', printed
    )
    assert [int(total) for _, total, _ in differing][-1] == 7 * 5
    for number, total, gap in differing:
        assert int(number) <= 0.02 * int(total)
        assert float(gap) < 1e-6
    predictions = re.findall(r'(\d+) of (\d+) predictions', printed)
    assert all(same == total for same, total in predictions)
    # The bank is made once.
    made = next(tmp_path.iterdir()).stat().st_mtime_ns
    assert knn.main([*arguments, '--queries', '7', '--no-plain']) == 0
    printed = capsys.readouterr().out
    assert 'sorted by chunks' not in printed
    assert [file.stat().st_mtime_ns for file in tmp_path.iterdir()] == [made]


def test_more_neighbours_than_the_bank_has(knn, capsys):
    assert knn.main(['--bank', '3', '--k', '4']) == 2
    assert capsys.readouterr().err == (
        'error: --k 4 must be at most --bank 3\n'
    )
