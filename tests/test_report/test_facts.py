# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json

import pytest
from report_runs import (
    K,
    detector_cfg,
    detector_lines,
    healthy_lines,
    scfs_cfg,
    write_start,
)

from mmscfs.report import make_page
from mmscfs.report.facts import (
    describe,
    detections,
    differences,
    last_score,
    results,
)
from mmscfs.results import Result, read_log, write_result


def run(folder, cfg=None, lines=(), **kwargs):
    write_start(folder, cfg or scfs_cfg(), lines, **kwargs)
    return read_log(folder)


def make_result(protocol, metrics):
    return Result(
        protocol=protocol,
        dataset='digits',
        config=protocol,
        checkpoint=None,
        network=None,
        pretraining=dict(method=None, epochs=1, batch_size=8, dataset=None),
        backbone='ResNet-18',
        metrics=metrics,
        settings={},
        work_dir='x',
        epoch=1,
    )


HOSTILE = {
    'model': dict(model=[1]),
    'train_cfg': dict(train_cfg=[1]),
    'loader': dict(train_dataloader=[1]),
    'parts': dict(model=dict(type='SCFS', head=[1], neck=[2])),
    'hooks': dict(default_hooks=[1]),
    'negative': dict(train_cfg=dict(max_epochs=-1)),
    'wrapper': dict(optim_wrapper=[1], param_scheduler='x', auto_scale_lr=7),
    'load_from': dict(
        load_from=3,
        model=dict(type='ImageClassifier', backbone=dict(type='ResNet')),
    ),
    'backbone': dict(model=dict(type='ImageClassifier', backbone='x')),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_settings_of_the_wrong_kind_end_no_report(tmp_path, name):
    log = run(tmp_path, scfs_cfg(**HOSTILE[name]), healthy_lines(100))
    assert 'Total loss' in make_page([log])


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('5', 'has 2 damaged lines'),
        ('null', 'has 2 damaged lines'),
        ('{"pascal_voc/mAP": null, "step": 3}', 'lacks AP'),
        ('{"pascal_voc/mAP": "x"}', 'lacks AP'),
    ],
)
def test_a_detector_s_lines_of_another_kind(tmp_path, line, words):
    log = write_start(tmp_path, detector_cfg(), detector_lines())
    with open(log / 'scalars.json', 'a') as file:
        file.write(f'{line}\n{line}\n')
    assert words in detections(read_log(tmp_path), 'mine')[-1]


def test_settings(tmp_path):
    """A config's variables hold other crops, which were changed later."""
    cfg = dict(
        multi_crop=dict(type='MultiCrop', num_local=2, local_size=32),
        **scfs_cfg(
            randomness=dict(seed=7),
            auto_scale_lr=dict(base_batch_size=256, enable=True),
        ),
    )
    cfg['default_hooks'] |= dict(
        teacher_temp=dict(type='TeacherTemperatureHook', start=0.04, end=0.07),
        teacher=dict(type='MomentumTeacherHook', momentum=0.99),
    )
    assert describe(run(tmp_path, cfg)) == {
        'Method': 'SCFS',
        'Backbone': 'ResNet-18',
        'Data': 'scenes',
        'Images in a step': 32,
        'Length': '10 epochs',
        'Optimizer': 'type=SGD, lr=0.1, weight_decay=0.0001',
        'Learning rate': 'of 256 images, scaled to those in a step',
        'Crops': 'type=MultiCrop, num_local=8, local_size=96, '
        'local_scale=[0.05, 0.25]',
        'Search layers': [1, 2, 3],
        'Search': 'SoftFeatureSearch',
        'Prototypes': K,
        'Teacher temperature': 'type=TeacherTemperatureHook, start=0.04, '
        'end=0.07',
        'Teacher': 'type=MomentumTeacherHook, momentum=0.99',
        'Seed': 7,
    }


def test_what_differs(tmp_path):
    one, two = scfs_cfg(work_dir='a'), scfs_cfg(work_dir='b', extra='x' * 500)
    two['optim_wrapper']['optimizer']['lr'] = 0.2
    logs = [run(tmp_path / 'a', one), run(tmp_path / 'b', two)]
    rows, more = differences(logs)
    assert rows[0] == ['optim_wrapper.optimizer.lr', '0.1', '0.2']
    assert rows[1][:2] == ['extra', '–']
    assert len(rows[1][2]) == 160
    assert (len(rows), more) == (2, 0)


def test_scores_in_words(tmp_path):
    log = run(tmp_path / 'a', None, healthy_lines(200))
    assert last_score(log) == 'k-NN accuracy 35 % (k = 10) at epoch 5'
    log = run(tmp_path / 'b', detector_cfg(), detector_lines())
    assert last_score(log) == 'Box AP, VOC 50 % at iteration 100'
    row = detections(log, 'b')
    assert row == ['b', 'random', '50.0', '75.0', *'––––', '']
    assert last_score(run(tmp_path / 'c')) is None


def test_results_and_what_cannot_be_read(tmp_path, monkeypatch):
    log = run(tmp_path)
    assert results(log, 'mine', notes := []) == []
    assert notes == []
    path = tmp_path / 'epoch_1.knn.json'
    path.write_text('{"format": "mmscfs-result-1", "protocol": 3}')
    good = make_result('svm', {'svm/mAP': 55.0})
    write_result(tmp_path / 'epoch_1.svm.json', good)
    (tmp_path / 'other.json').write_text('{"images": [')
    (row,) = results(log, 'mine', notes)
    assert row[-2:] == ['mAP of the classifiers 55.00 %', 'svm/mAP 55.00']
    (note,) = notes
    assert note.startswith(f'mine: result {str(path)!r}: entries missing')

    def refuse(paths):
        raise PermissionError(13, 'Permission denied', str(*paths))

    monkeypatch.setattr('mmscfs.report.facts.find_results', refuse)
    assert results(log, 'mine', notes := []) == []
    assert f'Permission denied: {str(path)!r}' in notes[0]


def test_scores_of_a_test(tmp_path):
    """An evaluation in this folder writes them, too, and what they are of."""
    log = write_start(tmp_path, scfs_cfg(), [])
    path = log.parent / '20260101_000000.json'
    scores = {'knn/top1': 61.234, 'knn/k': 20}
    path.write_text(json.dumps(scores | {'time': 0.5}))
    found = read_log(tmp_path)
    assert found.state(found.written) == 'tested'
    (row,) = results(found, 'mine', [])
    assert row[:5] == ['mine', 'test', 'scenes', '–', '–']
    assert row[5:] == ['k-NN accuracy 61.23 %', 'knn/top1 61.23, knn/k 20.00']
    write_result(tmp_path / 'epoch_1.knn.json', make_result('knn', scores))
    (row,) = results(found, 'mine', [])
    assert row[:3] == ['mine', 'knn', 'digits']
    path.write_text(json.dumps(scores | {'knn/top1': 61.5}))
    assert len(results(read_log(tmp_path), 'mine', [])) == 2
