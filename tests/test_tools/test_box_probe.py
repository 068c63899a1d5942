# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/box_probe.py."""

import csv
import json

import pytest
import torch
from commands import ROOT, call, refusal
from digit_runs import DETECT, KNN, PRETRAIN, coco_options
from mmpretrain.registry import MODELS

SCRIPT = 'tools/box_probe.py'


def rows_of(folder):
    with open(folder / 'boxes.csv', newline='') as file:
        return [*csv.DictReader(file)]


def test_checkpoints_beside_random_weights(digit_scenes, pretrained, tmp_path):
    options = [
        *('--pretrained', 'random', pretrained, '--k', 5, '--out', tmp_path),
        *coco_options(digit_scenes),
    ]
    done = call(SCRIPT, DETECT, *options)
    assert done.returncode == 0, done.output
    rows = rows_of(tmp_path)
    layers = ['all', 'layer1', 'layer2', 'layer3', 'layer4']
    assert [row['layers'] for row in rows] == layers * 2
    assert [row['network'] for row in rows] == [''] * 5 + ['teacher'] * 5
    assert {row['source'] for row in rows} == {'random', str(pretrained)}
    for row in rows:
        for name in ('top1', 'object_top1', 'mIoU'):
            assert 0 <= float(row[name]) <= 100
    assert 'boxes in 8 images judged by' in done.stdout
    # The same again, without masks and with one layer.
    done = call(
        *(SCRIPT, DETECT, '--layers', 'layer4', '--no-masks'),
        *('--network', 'student', *options),
    )
    assert done.returncode == 0, done.output
    again = rows_of(tmp_path)
    assert [row['layers'] for row in again] == ['all', 'all']
    names = ('top1', 'object_top1')
    assert [again[0][n] for n in names] == [rows[4][n] for n in names]
    assert again[1]['network'] == 'student'
    assert {row['mIoU'] for row in again} == {'-'}


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        ('nan', 'a feature is not finite'),
        ('narrow', 'base_channels=8'),
        ('none', 'no checkpoint '),
    ],
)
def test_checkpoints_that_do_not_do_are_named(
    digit_scenes, pretrained, tmp_path, fault, message
):
    bad = tmp_path / 'bad.pth'
    if fault == 'nan':
        checkpoint = torch.load(pretrained, weights_only=True)
        for value in checkpoint['state_dict'].values():
            if value.ndim == 4:
                value.fill_(float('nan'))
        torch.save(checkpoint, bad)
    elif fault == 'narrow':
        network = dict(type='ResNet', depth=18, base_channels=8)
        torch.save(MODELS.build(network).state_dict(), bad)
    done = call(
        *(SCRIPT, DETECT, '--pretrained', bad, '--no-masks', '--k', 5),
        *('--layers', 'last', '--out', tmp_path, *coco_options(digit_scenes)),
    )
    assert done.returncode == 1
    assert f'not scored: {bad}: ' in done.stdout
    assert message in done.stdout


@pytest.mark.parametrize(
    ('config', 'words', 'message'),
    [
        (KNN, [], 'has no train_dataloader: take a config of a detector'),
        (DETECT, ['--layers', 'res5'], "layers=['res5'] must be"),
        (DETECT, ['--k', '1000'], 'k=1000 must be at least 1 and at most the'),
        (DETECT, ['--network', 'both'], "invalid choice: 'both'"),
        (DETECT, ['--images', '0'], '0 must be a whole number >= 1'),
    ],
)
def test_what_makes_no_sense_is_refused(
    digit_scenes, pretrained, tmp_path, config, words, message
):
    error = refusal(
        *(SCRIPT, config, '--pretrained', pretrained, '--out', tmp_path),
        *words,
        *(coco_options(digit_scenes) if config == DETECT else []),
    )
    assert message in error


def test_validation_of_a_pretraining(digit_scenes, tmp_path):
    """The base of a config, from the command line to the result's file."""
    bases = PRETRAIN, 'configs/_base_/datasets/digit-scenes_boxes.py'
    config = tmp_path / 'boxed.py'
    config.write_text(
        f'_base_ = {[str(ROOT / base) for base in bases]}\n'
        'train_cfg = dict(val_interval=1)\n'
        'default_hooks = dict(\n'
        "    checkpoint=dict(save_best='boxes/top1', rule='greater'),\n"
        "    result=dict(type='ResultFileHook'),\n"
        ')\n'
        "evaluation = dict(protocol='boxes', dataset='digits')\n"
    )
    done = call(
        *('tools/train.py', config, '--work-dir', tmp_path / 'run'),
        '--cfg-options',
        f'train_dataloader.dataset.data_root={digit_scenes}',
        f'val_dataloader.dataset.data_root={digit_scenes}',
        *('train_dataloader.batch_size=8', 'train_cfg.max_epochs=1'),
        *('val_cfg.k=5', 'val_cfg.num_images=8'),
    )
    assert done.returncode == 0, done.output
    result = json.loads((tmp_path / 'run/boxed.json').read_text())
    assert result['protocol'] == 'boxes'
    assert {'boxes/top1', 'boxes/layer4_mIoU', 'best/boxes/mIoU'} <= {
        *result['metrics']
    }
    assert [*(tmp_path / 'run').glob('best_boxes_top1_epoch_1.pth')]
