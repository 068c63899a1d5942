# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of results_table.py and compare_transfer.py."""

import csv
from pathlib import Path

import pytest
from commands import load_tool
from report_runs import detector_cfg, detector_lines, write_start

from mmscfs.results import Result, result_path, write_result

FILES = {'results_table': 'results', 'compare_transfer': 'transfer'}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(name, *words):
    return load_tool(f'analysis_tools/{name}').main([*words, '--out', 'out'])


def save(name, good=True):
    """Write something to gather, without a score if it is not good."""
    if name == 'compare_transfer':
        lines = detector_lines() if good else detector_lines()[:-1]
        write_start(Path('run'), detector_cfg(), lines)
        return 'run'
    path = result_path('epoch_200.pth', 'knn_in1k')
    facts = dict(epochs=200, batch_size=256, dataset='imagenet')
    result = Result(
        protocol='knn',
        dataset='in1k',
        config='knn_in1k',
        checkpoint='epoch_200.pth',
        network='teacher',
        pretraining=dict(facts, method='SCFS'),
        backbone='ResNet-50',
        metrics={'knn/top1': 65.12 if good else None},
        settings={},
        work_dir='work',
        epoch=None,
    )
    write_result(path, result)
    return str(path)


@pytest.mark.parametrize(
    ('name', 'score', 'note', 'heading'),
    [
        ('results_table', '65.1', 'of trainings those of the', 'method'),
        (
            'compare_transfer',
            '50.0',
            'of runs are those of their',
            'initialization',
        ),
    ],
)
def test_a_table_is_printed_and_written(name, score, note, heading, capsys):
    assert call(name, save(name)) == 0
    printed = capsys.readouterr().out
    text = Path(f'out/{FILES[name]}.md').read_text()
    for found in (printed, text):
        assert score in found
        assert 'this run (' in found
        assert f'{note} last validation' in found
    with open(f'out/{FILES[name]}.csv', newline='') as file:
        assert next(csv.reader(file))[1] == heading


@pytest.mark.parametrize('name', FILES)
def test_what_is_not_scored_is_told(name, capsys):
    path = save(name, good=False)
    assert call(name, path) == 0
    assert f'not scored: {path}: ' in capsys.readouterr().out
    assert f'- {path}: ' in Path(f'out/{FILES[name]}.md').read_text()


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('word', ['absent', 'empty', 'damaged'])
def test_refusals(name, word, capsys):
    """Code 2, a line that names what is wrong, and nothing written."""
    good = save(name)
    Path('empty').mkdir()
    if name == 'results_table':
        Path('damaged').write_text(Path(good).read_text()[:-9])
    else:
        log = write_start(Path('damaged'), detector_cfg(), [])
        log.joinpath('config.py').write_text('model = dict(')
    try:
        code = call(name, good, word)
    except SystemExit as error:  # by argparse
        code = error.code
    assert code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert 'error: ' in line
    assert word in line
    assert not Path('out').exists()
