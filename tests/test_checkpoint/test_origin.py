# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which of the paper's other methods a checkpoint is of."""

import pytest
import torch

from mmscfs.checkpoint import origin_of, read_origin


@pytest.mark.parametrize(
    ('name', 'method'),
    [
        ('mocov1_resnet50_8xb32-steplr-200e_in1k', 'MoCo'),
        ('mocov2_resnet50_8xb32-coslr-200e_in1k', 'MoCo v2'),
        ('moco_v1_200ep_pretrain', 'MoCo'),
        ('moco_v2_800ep_pretrain', 'MoCo v2'),
        ('mocov3_resnet50_8xb512-amp-coslr-300e_in1k', 'MoCo v3'),
        ('mocov1-co2_resnet50_8xb32-steplr-200e_in1k', 'MoCo + CO2'),
        ('mocov2-co2_resnet50_8xb32-coslr-200e_in1k', 'MoCo v2 + CO2'),
        ('simsiam_resnet50_8xb32-coslr-200e_in1k', 'SimSiam'),
        ('barlowtwins_resnet50_8xb256-coslr-300e_in1k', 'Barlow Twins'),
        ('barlow_twins-300ep', 'Barlow Twins'),
        ('densecl_resnet50_8xb32-coslr-200e_in1k', 'DenseCL'),
        ('mine', None),
    ],
)
def test_names_of_files_that_are_gone(name, method, tmp_path):
    assert read_origin(str(tmp_path / 'x' / f'{name}.pth')).method == method


@pytest.mark.parametrize(
    ('prefix', 'other', 'method'),
    [
        ('module.encoder_q.', 'fc.weight', 'MoCo'),
        ('module.encoder_q.', 'fc.2.weight', 'MoCo v2'),
        ('module.base_encoder.', 'fc.0.weight', 'MoCo v3'),
    ],
)
def test_versions_of_the_moco_releases(prefix, other, method, tmp_path):
    """By their tensors: the second has a projector of two layers."""
    state = {
        f'{prefix}conv1.weight': torch.zeros(2, 3, 7, 7),
        f'{prefix}{other}': torch.zeros(2, 2),
    }
    torch.save(dict(state_dict=state, epoch=200), tmp_path / 'model.pth')
    origin = read_origin(str(tmp_path / 'model.pth'))
    assert (origin.method, origin.epochs) == (method, 200)


@pytest.mark.parametrize(
    ('model', 'method'),
    [
        (dict(type='MoCo', neck=dict(type='LinearNeck')), 'MoCo'),
        (dict(type='MoCo', neck=dict(type='MoCoV2Neck')), 'MoCo v2'),
        (dict(type='MoCoV3', neck=dict(type='NonLinearNeck')), 'MoCo v3'),
        (dict(type='MoCoCO2', neck=dict(type='LinearNeck')), 'MoCo + CO2'),
        (
            dict(type='MoCoCO2', neck=dict(type='MoCoV2Neck')),
            'MoCo v2 + CO2',
        ),
        (dict(type='BarlowTwins'), 'Barlow Twins'),
        (dict(type='SimSiam'), 'SimSiam'),
        (dict(type='ImageClassifier'), 'supervised'),
        (dict(type='MAE'), 'MAE'),  # none of the paper's
        ({}, None),
    ],
)
def test_types_in_configs(model, method):
    assert origin_of(dict(model=model)).method == method


@pytest.mark.parametrize(
    ('epoch', 'epochs'),
    [
        (40, 40),
        ('40', 40),  # as in a safetensors file
        ('\u00b2', 7),  # a raised two: a digit, but no number
        (torch.ones(2), 7),
        (True, 7),
        (-1, 7),
        (None, 7),
    ],
)
def test_epochs_are_those_of_the_file_else_of_its_name(
    epoch, epochs, tmp_path
):
    path = tmp_path / 'epoch_7.pth'
    torch.save(dict(state_dict={}, meta=dict(epoch=epoch)), path)
    assert read_origin(str(path)).epochs == epochs
