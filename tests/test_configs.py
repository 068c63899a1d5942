# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import HOOKS, MODELS

import mmscfs  # noqa: F401
from mmscfs.models.utils import MultiCropDataPreprocessor

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob('*.py')
    # The others have their own tests: tests/test_*_configs.py, and
    # tests/test_tools/test_sweep_lists.py.
    if path.relative_to(ROOT).parts[0] in ('dino', 'scfs', 'scfs_r50.py')
)
# Named for the README; every other name says all.
SHORT_NAMES = [
    'scfs/scfs_r50_boxes.py',
    'scfs/scfs_r50_knn.py',
    'scfs/scfs_r50_release.py',
    'scfs_r50.py',
]
# Each kind of backbone of both algorithms; one search layer and all.
BUILT = [
    'scfs_r50.py',
    'scfs/scfs_resnet50_8xb32-mcrop-res2-coslr-200e_in100.py',
    'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
    'scfs/scfs_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py',
    'dino/dino_resnet50_8xb32-mcrop-coslr-200e_in1k.py',
    'dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py',
]
NAME = re.compile(
    r'(?P<algorithm>[a-z0-9]+)_(?P<backbone>[a-z0-9-]+)'
    r'_(?P<gpus>\d+)xb(?P<batch>\d+)(?P<mode>(-mcrop)?(-[a-z0-9]+)*)'
    r'-coslr-(?P<epochs>\d+)e'
    r'_(?P<data>[a-z0-9-]+)'
)
# By the mode that a name tells: the one switch it is about.
MODES = {
    '-mcrop': {},
    '': {'num_local': 0},
    '-mcrop-mlayer': {'search_views': 'none'},
    '-mcrop-roi': {'search': dict(type='RoIFeatureSearch')},
    '-mcrop-res2': {'search_layers': [1]},
    '-mcrop-res2-res3': {'search_layers': [1, 2]},
}
DATA_ROOTS = dict(
    in1k='data/imagenet',
    in100='data/imagenet100',
    coco='data/coco',
    digits='data/digit-scenes',
) | {'digit-cards': 'data/digit-cards'}


@cache
def read(name):
    return Config.fromfile(ROOT / name)


def load(name):
    return copy.deepcopy(read(name))


def multi_crop(cfg):
    """Return the settings of the config's only MultiCrop."""
    (found,) = (
        transform
        for transform in cfg.train_dataloader.dataset.pipeline
        if transform.type == 'MultiCrop'
    )
    return found


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - set(SHORT_NAMES)))
def test_name_says_what_the_config_does(name):
    path, cfg = Path(name), load(name)
    said = NAME.fullmatch(path.stem)
    assert said, f'{name} is not named as OpenMMLab names its configs'
    batch, epochs = int(said['batch']), int(said['epochs'])
    total = int(said['gpus']) * batch
    assert said['algorithm'] == path.parent.name
    # Multi-layer contrast is DINO's, in SCFS's class.
    mlayer = said['mode'] == '-mcrop-mlayer'
    expected = 'scfs' if mlayer else said['algorithm']
    assert cfg.model.type.lower() == expected
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == total
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_dataloader.dataset.data_root == DATA_ROOTS[said['data']]
    kind, size = said['backbone'].split('-')[0], cfg.model.backbone
    if kind.startswith('resnet'):
        assert (size.type, kind) == ('ResNet', f'resnet{size.depth}')
    else:
        assert size.type.endswith('VisionTransformer')
        assert kind == 'vit'


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'in100' in name])
def test_a_mode_differs_by_its_one_switch(name):
    said = NAME.fullmatch(Path(name).stem)
    switch = MODES[said['mode']]
    cfg = load(name)
    parent = load(
        f'{cfg.model.type.lower()}/{cfg.model.type.lower()}_'
        f'{said["backbone"]}_8xb32-mcrop-coslr-200e_in100.py'
    )
    for key, value in switch.items():
        if key == 'num_local':
            multi_crop(parent).num_local = parent.multi_crop.num_local = value
        else:
            assert parent.model.get(key) != value
            parent.model[key] = value
    assert cfg.to_dict() == parent.to_dict()


@pytest.mark.parametrize(
    'name', [name for name in CONFIGS if '-w16' not in name]
)
def test_facts_of_every_paper_recipe(name):
    cfg = load(name)
    assert cfg.train_dataloader.batch_size == 32
    assert cfg.train_dataloader.drop_last
    assert cfg.model.neck.num_prototypes == 65536
    crop = multi_crop(cfg)
    assert (crop.global_size, crop.local_size) == (224, 96)
    without = 'in100' in name and '-mcrop' not in name
    assert crop.num_local == (0 if without else 8)
    assert crop.global_scale == (0.25, 1.0)
    small = 'in100' in name
    assert crop.local_scale == ((0.05, 0.14) if small else (0.05, 0.25))
    hooks = cfg.default_hooks
    assert hooks.teacher.momentum == 0.996
    assert hooks.frozen_prototypes.epochs == 1
    assert HOOKS.build(hooks.teacher_temp).temperature(0) == 0.04
    assert cfg.optim_wrapper.precision == 'auto'
    assert cfg.sync_bn == 'torch'
    warm_up, cosine, *_ = cfg.param_scheduler
    assert warm_up.end == 10
    wrapper = cfg.optim_wrapper
    scale = cfg.auto_scale_lr.base_batch_size / 256
    if 'vit' in name:  # tests/test_engine/test_schedules.py has the rest
        assert wrapper.optimizer == dict(
            type='AdamW', lr=0.0005 * scale, weight_decay=0.04
        )
        assert cosine.eta_min == 1e-6
    else:
        assert wrapper.optimizer == dict(
            type='SGD',
            lr=pytest.approx(0.1 * scale),
            momentum=0.9,
            weight_decay=1e-4,
        )
        assert cosine.eta_min == 0.0048


def test_release_differs_in_the_searched_views_alone():
    """The default searches both, on batches of 256."""
    release, ours = load('scfs/scfs_r50_release.py'), load('scfs_r50.py')
    assert ours.model.get('search_views', 'all') == 'all'
    assert ours.train_cfg.max_epochs == 200
    assert ours.auto_scale_lr.base_batch_size == 8 * 32
    assert ours.train_dataloader.dataset.data_root == 'data/imagenet'
    assert ours.train_dataloader.dataset.data_prefix == 'train'
    assert release.model.pop('search_views') == 'first'
    assert release.to_dict() == ours.to_dict()


@pytest.mark.parametrize('name', BUILT)
def test_model_takes_the_views(name):
    """Built as the runner does."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    assert isinstance(model.data_preprocessor, MultiCropDataPreprocessor)
    crop = multi_crop(cfg)
    model.check_fit(
        [(3, size, size) for size in (crop.global_size, crop.local_size)]
    )
    prototypes = model.neck.prototypes.weight
    digits = cfg.train_dataloader.batch_size == 64
    assert prototypes.shape == ((512, 128) if digits else (65536, 256))
    assert model.head.num_prototypes == len(prototypes)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53]
    )
    assert model.data_preprocessor._channel_conversion  # BGR files to RGB
    if cfg.model.type == 'SCFS':
        layers = cfg.model.get('search_layers', model.backbone.out_indices)
        assert model.head.layer_names == tuple(f'layer{i + 1}' for i in layers)
        assert model.search_outputs == list(range(len(layers)))
        width = 128 if digits else 256
        assert [len(center.value) for center in model.centers] == [
            len(prototypes),
            *[width] * len(layers),
        ]
        if cfg.model.backbone.get('depth') in (50, 101):
            channels = {1: 512, 2: 1024, 3: 2048}
            assert [
                projector.in_channels
                for projector in model.search_neck.projectors
            ] == [channels[i] for i in layers]
            assert model.neck.in_channels == 2048
