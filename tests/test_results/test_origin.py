# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How checkpoints and configs say that they were pre-trained."""

import argparse

import pytest
import torch

from mmscfs.results import (
    backbone_name,
    backbone_origin,
    find_start,
    origin_of,
    read_origin,
)

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
WEIGHT = torch.zeros(2, 3, 7, 7)


def save(path, cfg=CONFIG, **meta):
    text = ''.join(f'{key} = {value!r}\n' for key, value in cfg.items())
    state = {'teacher.backbone.conv1.weight': WEIGHT}
    torch.save(dict(state_dict=state, meta=dict(meta, cfg=text)), path)
    return str(path)


def test_a_raw_checkpoint(tmp_path):
    """Its file's name, of another algorithm, says nothing."""
    path = save(tmp_path / 'dino_epoch_3.pth', epoch=120, world_size=8)
    origin = read_origin(path)
    assert origin == (
        'SCFS',
        120,
        8 * 32 * 2,
        'imagenet100',
        'teacher',
        dict(
            num_local=6,
            local_scale=[0.05, 0.14],
            search_layers=[2, 3],
            search='SoftFeatureSearch',
            search_views='all',
        ),
        '',
        path,
    )
    assert origin.label == 'SCFS (imagenet100)'
    # 32 images in how many processes?
    path = save(tmp_path / 'last.pth', epoch=120)
    assert read_origin(path).batch_size is None


def test_data_in_wrappers():
    leaf = CONFIG['train_dataloader']['dataset']
    parts = [leaf, dict(leaf, data_root='data/coco/'), leaf]
    repeated = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=parts),
    )
    cfg = dict(CONFIG, train_dataloader=dict(dataset=repeated))
    assert origin_of(cfg).data == 'imagenet100, coco'


@pytest.mark.parametrize(
    'cfg',
    [
        dict(model='SCFS'),
        dict(model=dict(type='SCFS'), train_dataloader=[1]),
        None,
        'gone',
    ],
)
def test_what_cannot_be_read_goes_by_its_file(tmp_path, cfg):
    """A config's text may hold anything; nothing is guessed."""
    path = tmp_path / 'scfs' / 'dino_epoch_7.pth'
    path.parent.mkdir()
    if cfg is None:
        path.write_bytes(b'PK torn')
    elif cfg != 'gone':
        save(path, cfg, world_size=1)
    origin = read_origin(str(path))
    assert (origin.method, origin.epochs) == (None, None)
    assert origin.label == 'scfs/dino_epoch_7.pth'


def moco(name, head):
    prefix = f'module.{name}.'
    return {f'{prefix}conv1.weight': WEIGHT, f'{prefix}{head}': WEIGHT}


BARE = {'conv1.weight': WEIGHT, 'fc.weight': WEIGHT}
DINO = {'module.backbone.conv1.weight': WEIGHT}
ARGS = argparse.Namespace(world_size=8)


@pytest.mark.parametrize(
    ('checkpoint', 'expected'),
    [
        (
            dict(state_dict=moco('encoder_q', 'fc.weight'), epoch=200),
            ('MoCo', 200, None),
        ),
        (  # text, as in a safetensors file
            dict(state_dict=moco('encoder_q', 'fc.2.weight'), epoch='40'),
            ('MoCo v2', 40, None),
        ),
        (
            dict(state_dict=moco('base_encoder', 'fc.0.weight'), epoch=-1),
            ('MoCo v3', None, None),
        ),
        (
            dict(teacher=DINO, student=DINO, epoch=800, args=ARGS),
            ('DINO', 800, None),
        ),
        (BARE, ('supervised', None, None)),
        # A linear probe: nothing says what is below it.
        (dict(state_dict=BARE, epoch=True), (None, None, None)),
    ],
)
def test_releases_by_their_tensors(tmp_path, checkpoint, expected):
    path = tmp_path / 'model.pth'
    torch.save(checkpoint, path)
    assert read_origin(str(path))[:3] == expected


@pytest.mark.parametrize(
    ('model', 'method'),
    [
        (dict(type='MoCo', neck=dict(type='LinearNeck')), 'MoCo'),
        (
            dict(type='MoCoCO2', neck=dict(type='MoCoV2Neck')),
            'MoCo v2 + CO2',
        ),
        (dict(type='ImageClassifier'), 'supervised'),
        (dict(type='MAE'), 'MAE'),  # not in the paper
        ({}, None),
    ],
)
def test_types_in_configs(model, method):
    assert origin_of(dict(model=model)).method == method


@pytest.mark.parametrize(
    ('search', 'label'),
    [
        (None, 'SCFS'),
        (dict(type='SoftFeatureSearch'), 'SCFS'),
        (dict(type='RoIFeatureSearch'), 'ROI Crop'),
        (dict(type='SharpFeatureSearch'), 'SCFS, SharpFeatureSearch'),
    ],
)
def test_another_search_is_not_taken_for_the_papers(search, label):
    model = dict(type='SCFS', search_neck=dict(mid_channels=8), search=search)
    assert origin_of(dict(model=model)).label == label


@pytest.mark.parametrize(
    ('checkpoint', 'label'),
    [
        ('torchvision://resnet50', 'supervised (torchvision)'),
        ('open-mmlab://detectron2/r50', 'supervised (detectron2/r50)'),
        ('http://x/scfs.pth', 'http://x/scfs.pth'),
    ],
)
def test_backbones_from_addresses(checkpoint, label):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    for backbone in (
        dict(init_cfg=init_cfg),
        dict(init_cfg=[dict(type='Constant'), init_cfg]),
    ):
        origin = backbone_origin(backbone)
        assert (origin.label, origin.checkpoint) == (label, None)
    for init_cfg in (None, dict(type='Kaiming', layer='Conv2d')):
        assert backbone_origin(dict(init_cfg=init_cfg)).label == 'random'


def test_which_network_a_backbone_takes(tmp_path):
    path = save(tmp_path / 'a.pth', epoch=9)
    own = dict(type='mmscfs.Pretrained', checkpoint=path)
    plain = dict(type='Pretrained', checkpoint=path)
    for init_cfg, student in (
        (own, ''),
        (dict(plain, prefix='teacher.backbone.'), ''),
        (dict(own, network='student'), ', student'),
        (dict(plain, prefix='backbone.'), ', student'),
    ):
        origin = backbone_origin(dict(init_cfg=init_cfg))
        assert origin.label == f'SCFS (imagenet100){student}'


def test_a_start_is_before_resumption(tmp_path):
    """A resumed start need not repeat --pretrained."""
    path = save(tmp_path / 'a.pth', epoch=9)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    model = dict(backbone=dict(init_cfg=init_cfg))
    bare = dict(model=dict(backbone=dict(init_cfg=None)))
    resumed = dict(bare, resume=True, load_from='epoch_3.pth')
    scfs = 'SCFS (imagenet100)'
    assert find_start([dict(model=model), resumed, resumed]).label == scfs
    assert find_start([dict(model=model), bare, resumed]).label == 'random'
    # A job that always asks to resume.
    always = dict(model=model, resume=True)
    assert find_start([always, always]).label == scfs
    whole = dict(model=model, load_from='other/epoch_12.pth')
    assert find_start([whole]).label == 'all of epoch_12.pth'


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        (
            dict(type='mmdet.ResNet', depth=18, base_channels=16),
            'ResNet-18-w16',
        ),
        (
            dict(type='NormedVisionTransformer', arch='base', patch_size=8),
            'ViT-B-8',
        ),
        # mmpretrain's "small" has another size than all others'.
        (
            dict(type='VisionTransformer', arch='small'),
            'VisionTransformer-small',
        ),
    ],
)
def test_names_of_backbones(backbone, expected):
    assert backbone_name(backbone) == expected
