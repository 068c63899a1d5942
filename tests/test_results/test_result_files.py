# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Results of evaluations as files."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from mmscfs.results import (
    Result,
    find_results,
    read_result,
    result_path,
    write_result,
)

CONTENT = {
    'format': 'mmscfs-result-1',
    'protocol': 'knn',
    'dataset': 'in1k',
    'config': 'knn_resnet50_in1k',
    'checkpoint': 'epoch_200.pth',
    'network': 'teacher',
    'pretraining': {
        'method': 'SCFS',
        'epochs': 200,
        'batch_size': 256,
        'dataset': 'imagenet',
        'local_scale': [0.05, 0.25],
    },
    'backbone': 'ResNet-50',
    'metrics': {'knn/top1': 65.5, 'knn/k': 20},
    'settings': {'val_images': 50000},
    'work_dir': 'work_dirs/knn',
    'epoch': None,
}
RESULT = Result(**{k: v for k, v in CONTENT.items() if k != 'format'})


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'epoch_200.knn_resnet50_in1k.json'


def test_the_file_is_plain_json(path):
    write_result(path, RESULT)
    assert json.loads(path.read_text()) == CONTENT
    assert next(iter(json.loads(path.read_text()))) == 'format'
    assert read_result(path) == RESULT


@pytest.mark.parametrize('value', [-math.inf, np.float64('nan')])
def test_a_second_run_replaces_the_file(path, value):
    """What is not a finite number is null."""
    write_result(path, RESULT)
    settings = {'rates': [0.1, value]}
    metrics = {'knn/top1': value}
    write_result(path, RESULT._replace(metrics=metrics, settings=settings))
    assert read_result(path).metrics == {'knn/top1': None}
    assert read_result(path).settings == {'rates': [0.1, None]}
    assert os.listdir(path.parent) == [path.name]


def test_where_a_result_lies():
    for network in (None, 'teacher'):
        path = result_path('a/b/epoch_200.pth', 'knn_in1k', network)
        assert path == Path('a/b/epoch_200.knn_in1k.json')
    path = result_path('a/b/epoch_200.pth', 'knn_in1k', 'student')
    assert path == Path('a/b/epoch_200.student.knn_in1k.json')


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'format': 'mmscfs-result-2'}, 'this version of mmscfs did not'),
        ({'extra': 1}, 'missing or unknown: extra'),
        ({'protocol': 'kmeans'}, "'kmeans', not one of knn, linear"),
        (
            {'protocol': ['knn']},
            """"protocol" is "['knn']", which must be str""",
        ),
        ({'metrics': 5}, '"metrics" is \'5\', which must be dict'),
        ({'metrics': {'knn/top1': '5'}}, 'metric "knn/top1" is'),
        ({'epoch': 'last'}, 'must be int | None'),
        ({'pretraining': dict(method=[1])}, '"method" is \'[1]\''),
        ({'settings': dict(max_epochs='many')}, '"max_epochs" is \'many\''),
    ],
)
def test_wrong_entries_are_named(path, changes, text):
    path.write_text(json.dumps(CONTENT | changes))
    with pytest.raises(ValueError, match='epoch_200.knn') as error:
        read_result(path)
    assert text in str(error.value)


@pytest.mark.parametrize('text', [b'{"format": 1', b'[1]', b'\xff'])
def test_what_is_not_a_result_is_named(path, text):
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"result '{path}'"):
        read_result(path)


def test_results_are_found_at_any_depth(tmp_path):
    deep = tmp_path / 'scfs' / 'run' / 'a.json'
    deep.parent.mkdir(parents=True)
    write_result(deep, RESULT)
    write_result(tmp_path / 'b.json', RESULT)
    (tmp_path / 'scfs' / 'scalars.json').write_text('{"loss": 1.0}\n{"lo')
    (tmp_path / 'annotations.json').write_text('{"images": []}')
    (tmp_path / 'folder.json').mkdir()
    assert [*find_results([tmp_path])] == [tmp_path / 'b.json', deep]
    # Once, although named twice.
    assert len(find_results([deep, tmp_path])) == 2


def test_what_has_no_result_is_named(tmp_path, path):
    """A damaged one, a file or folder without, a missing file."""
    other = tmp_path / 'scalars.json'
    other.write_text('{"loss": 1.0}')
    with pytest.raises(ValueError, match='lacks "format"'):
        find_results([other])
    with pytest.raises(ValueError, match=f"no results in '{tmp_path}'"):
        find_results([tmp_path])
    with pytest.raises(FileNotFoundError, match=r"'a/no\.json'"):
        find_results(['a/no.json'])
    write_result(path, RESULT)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ValueError, match=path.name):
        find_results([tmp_path])
