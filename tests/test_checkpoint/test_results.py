import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmscfs.checkpoint import (
    Result,
    backbone_name,
    check_writable,
    find_results,
    origin_of,
    read_origin,
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


def write_changed(path, **changes):
    path.write_text(json.dumps(CONTENT | changes))
    return path


# Writing and reading


def test_the_file_is_plain_json(path):
    write_result(path, RESULT)
    assert json.loads(path.read_text()) == CONTENT
    assert next(iter(json.loads(path.read_text()))) == 'format'
    assert read_result(path) == RESULT


def test_a_second_run_replaces_the_file(path):
    write_result(path, RESULT)
    write_result(path, RESULT._replace(metrics={'knn/top1': 1.0}))
    assert read_result(path).metrics == {'knn/top1': 1.0}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    'value', [math.nan, math.inf, -math.inf, np.float64('nan')]
)
def test_what_is_no_number_is_null(path, value):
    settings = {'rates': [0.1, value]}
    write_result(
        path, RESULT._replace(metrics={'knn/top1': value}, settings=settings)
    )
    assert read_result(path).metrics == {'knn/top1': None}
    assert read_result(path).settings == {'rates': [0.1, None]}


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    write_result(path, RESULT)

    def full(*_):
        raise OSError('no space left')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='no space'):
        write_result(path, RESULT._replace(metrics={}))
    assert read_result(path) == RESULT
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ('network', 'expected'),
    [
        ('teacher', 'a/b/epoch_200.knn_resnet50_in1k.json'),
        (None, 'a/b/epoch_200.knn_resnet50_in1k.json'),
        ('student', 'a/b/epoch_200.student.knn_resnet50_in1k.json'),
    ],
)
def test_where_a_result_lies(network, expected):
    path = result_path('a/b/epoch_200.pth', 'knn_resnet50_in1k', network)
    assert path == Path(expected)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'format': 'mmscfs-result-2'}, 'another version of mmscfs'),
        ({'extra': 1}, 'unknown: extra'),
        ({'protocol': 'kmeans'}, "'kmeans', not one of knn, linear"),
        ({'dataset': None}, '"dataset" is None, not text'),
        ({'checkpoint': 3}, '"checkpoint" is 3, not text or null'),
        ({'epoch': 1.5}, '"epoch" is 1.5, not a whole number or null'),
        ({'epoch': True}, '"epoch" is True'),
        ({'settings': []}, '"settings" is [], not an object'),
        ({'metrics': {'knn/top1': '65'}}, "knn/top1='65', no number"),
        ({'metrics': {'knn/top1': math.nan}}, 'knn/top1=nan, no number'),
        ({'pretraining': {'method': 'SCFS'}}, '"pretraining" lacks epochs'),
        (
            {'pretraining': CONTENT['pretraining'] | {'epochs': '200'}},
            '"pretraining.epochs" is \'200\', not a whole number or null',
        ),
    ],
)
def test_wrong_entries_are_named(path, changes, text):
    with pytest.raises(ValueError, match='epoch_200.knn') as error:
        read_result(write_changed(path, **changes))
    assert text in str(error.value)


@pytest.mark.parametrize('text', ['{"format": 1', '', '[1]', '{}', '\udcff'])
def test_what_is_no_result_is_named(path, text):
    path.write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match=f"result '{path}'"):
        read_result(path)


def test_a_missing_entry_is_named(path):
    path.write_text(json.dumps({'format': 'mmscfs-result-1'}))
    with pytest.raises(ValueError, match='entries missing: protocol, datas'):
        read_result(path)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"'a/no\.json'"):
        read_result('a/no.json')


# Finding


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


def test_damaged_results_are_not_passed_over(tmp_path, path):
    write_result(path, RESULT)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ValueError, match=path.name):
        find_results([tmp_path])


def test_a_named_file_must_be_a_result(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 1.0}')
    with pytest.raises(ValueError, match='no "format"'):
        find_results([path])
    with pytest.raises(ValueError, match=f"no results in '{tmp_path}'"):
        find_results([tmp_path])
    with pytest.raises(FileNotFoundError, match='absent'):
        find_results([tmp_path / 'absent'])


# Before long work


def test_a_writable_place_is_left_as_it_was(path):
    check_writable(path)
    assert os.listdir(path.parent) == []


def test_no_folder_and_a_folder_in_place(path):
    with pytest.raises(OSError, match='no such folder') as error:
        check_writable(path.parent / 'gone' / path.name)
    assert 'gone' in str(error.value)
    path.mkdir()
    with pytest.raises(OSError, match='is a folder; remove it'):
        check_writable(path)


def test_a_folder_that_takes_no_file(path, monkeypatch):
    """Root may write anywhere: the refusal is the system's word."""

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'touch', refuse)
    with pytest.raises(OSError, match='Permission denied; give') as error:
        check_writable(path)
    assert str(path.parent) in str(error.value)
    assert 'ln -s' in str(error.value)


# What a checkpoint was pre-trained by


CROPS = dict(type='MultiCrop', num_local=6, local_scale=(0.05, 0.14))
CONFIG = dict(
    model=dict(
        type='SCFS',
        backbone=dict(type='ResNet', out_indices=(1, 2, 3)),
        search_neck=dict(type='FeatureSearchNeck'),
        search_layers=[2, 3],
    ),
    train_dataloader=dict(
        batch_size=32,
        dataset=dict(data_root='data/imagenet100', pipeline=[CROPS]),
    ),
    optim_wrapper=dict(accumulative_counts=2),
)


def save(path, cfg=CONFIG, **meta):
    text = ''.join(f'{key} = {value!r}\n' for key, value in cfg.items())
    state = {'teacher.backbone.conv1.weight': torch.zeros(2, 3, 7, 7)}
    torch.save(dict(state_dict=state, meta=dict(meta, cfg=text)), path)
    return str(path)


def test_origin_of_a_raw_checkpoint(tmp_path):
    path = save(tmp_path / 'last.pth', epoch=120, world_size=8)
    origin = read_origin(path)
    assert origin.method == 'SCFS'
    assert origin.epochs == 120
    assert origin.batch_size == 8 * 32 * 2
    assert origin.data == 'imagenet100'
    assert origin.network == 'teacher'
    assert origin.label == 'SCFS (imagenet100)'
    assert origin.recipe == dict(
        num_local=6,
        local_scale=[0.05, 0.14],
        search_layers=[2, 3],
        search='SoftFeatureSearch',
        search_views='all',
    )


def test_origin_without_the_number_of_processes(tmp_path):
    """32 images in how many processes?"""
    origin = read_origin(save(tmp_path / 'last.pth', epoch=120))
    assert origin.batch_size is None


def test_origin_of_data_in_wrappers():
    leaf = CONFIG['train_dataloader']['dataset']
    parts = [leaf, dict(leaf, data_root='data/coco/'), leaf]
    repeated = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=parts),
    )
    cfg = dict(CONFIG, train_dataloader=dict(dataset=repeated))
    assert origin_of(cfg).data == 'imagenet100, coco'


def test_origin_of_a_hostile_config(tmp_path):
    """A config's text may hold anything; the name is what is left."""
    for i, cfg in enumerate(
        (
            dict(model='SCFS'),
            dict(model=dict(type='SCFS'), train_dataloader=[1]),
            dict(CONFIG, optim_wrapper='x'),
        )
    ):
        path = save(tmp_path / f'dino_epoch_{i + 3}.pth', cfg, world_size=1)
        origin = read_origin(path)
        assert (origin.method, origin.epochs) == ('DINO', i + 3)


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        (dict(type='ResNet', depth=50), 'ResNet-50'),
        (dict(type='mmdet.ResNet', depth=101), 'ResNet-101'),
        (dict(type='ResNet', depth=18, base_channels=16), 'ResNet-18-w16'),
        (
            dict(type='VisionTransformer', arch='deit-small', patch_size=16),
            'ViT-S-16',
        ),
        (
            dict(type='NormedVisionTransformer', arch='base', patch_size=8),
            'ViT-B-8',
        ),
        # mmpretrain's "small" is none of the usual ones.
        (
            dict(type='VisionTransformer', arch='small'),
            'VisionTransformer-small',
        ),
        (dict(type='SwinTransformer', arch='tiny'), 'SwinTransformer-tiny'),
    ],
)
def test_names_of_backbones(backbone, expected):
    assert backbone_name(backbone) == expected
