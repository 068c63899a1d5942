# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/box_probe.py."""

import csv

import pytest
import torch
from commands import call, refusal
from digit_runs import DETECT, KNN, coco_options
from mmpretrain.registry import MODELS

SCRIPT = 'tools/box_probe.py'


def rows_of(folder):
    with open(folder / 'boxes.csv', newline='') as file:
        return [*csv.DictReader(file)]


def test_checkpoints_beside_random_weights(digit_scenes, pretrained, tmp_path):
    options = [
        *('--pretrained', 'random', pretrained, '--k', 5, '--images', 8),
        *('--out', tmp_path),
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


def test_checkpoints_that_do_not_fit_are_named(
    digit_scenes, pretrained, tmp_path
):
    bad = tmp_path / 'bad.pth'
    network = dict(type='ResNet', depth=18, base_channels=8)
    torch.save(MODELS.build(network).state_dict(), bad)
    done = call(
        *(SCRIPT, DETECT, '--pretrained', bad),
        *('--no-masks', '--k', 5, '--layers', 'last', '--out', tmp_path),
        *coco_options(digit_scenes),
    )
    assert done.returncode == 1
    assert f'not scored: {bad}: ' in done.stdout
    assert 'base_channels=8' in done.stdout


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'has no train_dataloader: take a config of a detector'),
        (['--images', '0'], '0 must be a whole number >= 1'),
        (['--pretrained', 'none.pth'], "no checkpoint 'none.pth'"),
    ],
)
def test_what_makes_no_sense_is_refused(pretrained, words, message):
    words = ['--pretrained', pretrained, *words]
    assert message in refusal(SCRIPT, KNN, *words)
