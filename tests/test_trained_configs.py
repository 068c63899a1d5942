# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every recipe of DINO and SCFS trains, resumes and hands its backbone on."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from mmscfs.checkpoint import (
    convert,
    encode,
    find_backbone,
    load_backbone,
    read_checkpoint,
)
from mmscfs.engine.prepare import prepare_config

ROOT = Path(__file__).parents[1] / 'configs'
# One of each structure; the others differ from one of these by numbers.
TRAINED = [
    'scfs_r50.py',
    'scfs/scfs_r50_release.py',
    'scfs/scfs_resnet50_8xb32-coslr-200e_in100.py',
    'scfs/scfs_resnet50_8xb32-mcrop-res2-res3-coslr-200e_in100.py',
    'scfs/scfs_resnet50_8xb32-mcrop-roi-coslr-200e_in100.py',
    'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
    'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-40e_digit-cards.py',
    'scfs/scfs_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py',
    'dino/dino_resnet50_8xb32-mcrop-coslr-200e_in1k.py',
    'dino/dino_resnet50_8xb32-coslr-200e_in100.py',
    'dino/dino_resnet50_8xb32-mcrop-mlayer-coslr-200e_in100.py',
    'dino/dino_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
    'dino/dino_resnet18-w16_1xb64-mcrop-coslr-40e_digit-cards.py',
    'dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py',
]
OTHERS = sorted(
    {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob('*.py')
        if path.relative_to(ROOT).parts[0] in ('dino', 'scfs', 'scfs_r50.py')
    }
    - {*TRAINED}
)
PARTS = (
    *('model', 'data_preprocessor', 'train_dataloader', 'train_cfg'),
    *('optim_wrapper', 'param_scheduler', 'default_hooks', 'custom_hooks'),
    *('randomness', 'sync_bn', 'find_unused_parameters'),
)
SHALLOW = dict(depth=18, stem_channels=8, base_channels=8)
# As many blocks as a ViT-S or ViT-B.
NARROW = dict(
    arch=dict(
        _delete_=True,
        embed_dims=24,
        num_layers=12,
        num_heads=2,
        feedforward_channels=48,
    ),
    img_size=32,
)


def load_small(name, images, work_dir):
    """Change a recipe as --cfg-options would: 2 iterations an epoch."""
    cfg = Config.fromfile(ROOT / name)
    vit = 'Transformer' in cfg.model.backbone.type
    num_local = cfg.train_dataloader.dataset.pipeline[1].num_local
    options = {
        'model.backbone': NARROW if vit else SHALLOW,
        'model.neck': dict(
            hidden_channels=16, bottleneck_channels=8, num_prototypes=12
        ),
        'train_dataloader.batch_size': 8,
        'train_dataloader.num_workers': 0,
        'train_dataloader.dataset.data_root': str(images),
        'train_dataloader.dataset.data_prefix': 'train',
        'train_dataloader.dataset.pipeline.1': dict(
            # Smaller, a strided convolution would meet maps of 1 x 1, whose
            # weight gradients oneDNN (torch 2.11) leaves undefined in bf16.
            global_size=32,
            local_size=32,
            num_local=min(2, num_local),
        ),
        'train_cfg.max_epochs': 1,
        'param_scheduler.0.end': 1,
        'param_scheduler.1.begin': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
        'log_level': 'WARNING',
        'work_dir': str(work_dir),
    }
    if 'search_neck' in cfg.model:
        options['model.search_neck'] = dict(
            mid_channels=4, hidden_channels=16, out_channels=10
        )
    for i in range(1, len(cfg.param_scheduler)):
        options[f'param_scheduler.{i}.end'] = 2
    cfg.merge_from_dict(options)
    if 'val_dataloader' in cfg:  # k-NN on the way needs ImageNet-100
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        del cfg.train_cfg['val_interval'], cfg.default_hooks['result']
        del cfg.default_hooks.checkpoint['save_best']
    prepare_config(cfg)
    return cfg


def structure(value):
    """Return settings without what numbers they have, or where data lie."""
    if isinstance(value, dict):
        return {
            key: bool(part) if key == 'num_local' else structure(part)
            for key, part in value.items()
            if key not in ('data_root', 'rule')
        }
    if isinstance(value, (list, tuple)):
        parts = [structure(part) for part in value]
        return 'numbers' if {*map(str, parts)} == {'number'} else parts
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return 'number' if is_number else value


@cache
def structure_of(name):
    cfg = load_small(name, 'images', 'work').to_dict()
    return structure({part: cfg.get(part) for part in PARTS})


def test_what_is_trained_differs_in_structure():
    structures = [str(structure_of(name)) for name in TRAINED]
    assert len({*structures}) == len(TRAINED)


@pytest.mark.parametrize('name', OTHERS)
def test_others_have_the_structure_of_one_that_is_trained(name):
    assert structure_of(name) in [structure_of(other) for other in TRAINED]


def read_losses(work_dir):
    """Return the total loss of every logged iteration."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = map(json.loads, log.read_text().splitlines())
    return [line['loss'] for line in lines if 'loss' in line]


@pytest.mark.parametrize('name', TRAINED)
def test_trains_resumes_and_exports(name, image_folder, tmp_path):
    cfg = load_small(name, image_folder, tmp_path / 'first')
    Runner.from_cfg(cfg).train()
    losses = read_losses(tmp_path / 'first')
    assert len(losses) == 2
    checkpoint = tmp_path / 'first/epoch_1.pth'

    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 2,
            'load_from': str(checkpoint),
            'resume': True,
            'work_dir': str(tmp_path / 'second'),
        }
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 4
    losses += read_losses(tmp_path / 'second')
    assert len(losses) == 4
    assert torch.isfinite(torch.tensor(losses)).all()

    path = tmp_path / 'second/epoch_2.pth'
    found = find_backbone(read_checkpoint(path))
    teacher = runner.model.teacher.backbone.state_dict()
    assert found.network == 'teacher'
    exported = tmp_path / 'backbone.pth'
    exported.write_bytes(
        encode(convert(found, 'openmmlab'), 'openmmlab', '.pth', {})
    )
    backbone = MODELS.build(cfg.model.backbone)
    load_backbone(backbone, exported)  # strict
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, teacher[key]), key
