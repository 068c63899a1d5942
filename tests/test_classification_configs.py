# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every classifier's config: its settings, and a run of one iteration."""

import copy
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from classification_data import NUM, make_data, shrink
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import MODELS

from mmscfs.engine import prepare_config
from mmscfs.results import PROTOCOLS, read_result

ROOT = Path(__file__).parents[1] / 'configs' / 'classification'
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py'))
NAME = re.compile(
    r'(?P<backbone>resnet50|resnet101|resnet18-w16|vit-(small|base)-p16)'
    r'_(?P<gpus>\d)xb(?P<batch>\d+)'
    r'-(?P<kind>linear|semi-10?percent|finetune)'
    r'-(?P<schedule>coslr|steplr)-(?P<length>\d+)(?P<unit>e|k)'
    r'_(?P<data>[a-z0-9]+)\.py'
)
KINDS = {
    'linear': 'linear',
    'semi-1percent': 'semi-1%',
    'semi-10percent': 'semi-10%',
    'finetune': 'finetune',
}
# Name -> number of classes and folder.
DATA = dict(
    in1k=(1000, 'data/imagenet'),
    in100=(100, 'data/imagenet100'),
    cifar10=(10, 'data/cifar10'),
    cifar100=(100, 'data/cifar100'),
    cub200=(200, 'data/CUB_200_2011'),
    cars=(196, 'data/Stanford_Cars'),
    aircraft=(100, 'data/fgvc-aircraft-2013b'),
    pets=(37, 'data/Oxford-IIIT_Pets'),
    digits=(10, 'data/digit-scenes'),
    voc07=(20, 'data/VOCdevkit/VOC2007'),
    folders=(None, 'my/labeled'),
)


@cache
def read(name):
    return Config.fromfile(ROOT / name)


def load(name):
    return copy.deepcopy(read(name))


# k-NN and sweeps of features train no network.
TRAINED = [name for name in CONFIGS if read(name).get('train_dataloader')]
SAID = {name: NAME.fullmatch(Path(name).name) for name in TRAINED}
FULL = [name for name in TRAINED if 'digits' not in name]
LINEAR = [name for name in TRAINED if '-linear-' in name]
COSINE = [name for name in TRAINED if '-coslr-' in name]
# One of each; the others differ from it by numbers.
STRUCTURES = {
    (
        name in LINEAR,
        read(name).model.backbone.type,
        read(name).train_dataloader.dataset.type,
        str(read(name).val_evaluator),
    ): name
    for name in TRAINED
}
# mmpretrain's.
MOCO = 'mocov2/benchmarks/resnet50_8xb32-linear-steplr-100e_in1k.py'


def test_every_training_is_found():
    assert all(SAID.values())
    assert Counter(said['kind'] for said in SAID.values()) == {
        'linear': 8,
        'finetune': 6,
        'semi-1percent': 1,
        'semi-10percent': 2,
    }


@pytest.mark.parametrize('name', CONFIGS)
def test_config_says_what_it_evaluates(name):
    cfg = load(name)
    assert set(cfg.evaluation) == {'protocol', 'dataset'}
    assert cfg.evaluation.protocol in PROTOCOLS
    assert cfg.evaluation.dataset in DATA
    assert cfg.evaluation.dataset in Path(name).stem.split('_')
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports.imports == ['mmscfs']
    assert cfg.load_from is None
    assert cfg.default_hooks.result.type == 'ResultFileHook'
    if name in TRAINED:
        kind = 'LinearProbe' if name in LINEAR else 'ImageClassifier'
        assert cfg.model.type == kind
        assert ('frozen_backbone' in cfg.default_hooks) == (name in LINEAR)
        assert cfg.model.backbone.get('frozen_stages', -1) == -1
        assert {'plain_checkpoint', 'non_finite_loss'} < {*cfg.default_hooks}


@pytest.mark.parametrize(
    'name', [name for name in CONFIGS if 'model' in read(name)]
)
def test_model_builds_and_downloads_nothing(name):
    cfg = load(name)
    settings = cfg.data_preprocessor
    cfg.model.setdefault('data_preprocessor', settings)
    model = MODELS.build(cfg.model)
    assert settings.to_rgb is True
    assert settings.mean == [123.675, 116.28, 103.53]
    assert settings.std == [58.395, 57.12, 57.375]
    assert cfg.model.backbone.get('init_cfg') is None
    if name in TRAINED:
        num_classes, width = model.head.fc.weight.shape
        assert num_classes == DATA[cfg.evaluation.dataset][0]
        image = torch.zeros(1, 3, 64, 64)
        if 'vit' not in name:
            (features,) = model.eval().extract_feat(image)
            assert features.shape == (1, width)


@pytest.mark.parametrize('name', TRAINED)
def test_name_says_what_the_config_does(name):
    cfg, said = load(name), SAID[name]
    assert cfg.evaluation.protocol == KINDS[said['kind']]
    assert cfg.evaluation.dataset == said['data']
    assert cfg.train_dataloader.batch_size == int(said['batch'])
    total = int(said['gpus']) * int(said['batch'])
    assert cfg.auto_scale_lr == dict(base_batch_size=total, enable=False)
    length = int(said['length'])
    if said['unit'] == 'e':
        assert cfg.train_cfg.max_epochs == length
        assert length % cfg.train_cfg.get('val_interval', 1) == 0
    else:
        assert cfg.train_cfg.max_iters == 1000 * length
        assert 1000 * length % cfg.train_cfg.val_interval == 0
    backbone = cfg.model.backbone
    if 'vit' in said['backbone']:
        size = said['backbone'].split('-')[1]
        assert (backbone.arch, backbone.patch_size) == (f'deit-{size}', 16)
    else:
        depth = re.search(r'\d+', said['backbone'])[0]
        assert (backbone.type, backbone.depth) == ('ResNet', int(depth))
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.data_root == DATA[said['data']][1]


def test_mocos_rate_falls_to_a_tenth_twice():
    (name,) = set(TRAINED) - set(COSINE)
    cfg = load(name)
    assert cfg.param_scheduler == [
        dict(type='MultiStepLR', by_epoch=True, milestones=[60, 80], gamma=0.1)
    ]
    own = get_config(f'mmpretrain::{MOCO}')
    assert cfg.optim_wrapper.optimizer == own.optim_wrapper.optimizer
    assert cfg.param_scheduler == own.param_scheduler
    assert cfg.train_cfg.max_epochs == own.train_cfg.max_epochs


@pytest.mark.parametrize('name', FULL)
def test_recipe(name):
    cfg, kind = load(name), SAID[name]['kind']
    rate, decay, per_class = 0.001, 0.0, False
    total = cfg.auto_scale_lr.base_batch_size
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    if kind == 'linear':
        if 'vit' not in name:
            rate = 0.3 if name in COSINE else 30
        rate *= total / 256
    elif kind == 'finetune':
        # A point of the grid: the decay is divided by the rate.
        rate, decay = 10**-2, 10**-5 / 10**-2
        assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
        assert cfg.default_hooks.checkpoint.by_epoch is False
        assert cfg.default_hooks.logger.log_metric_by_epoch is False
        per_class = cfg.evaluation.dataset in ('aircraft', 'pets')
        assert train.split == ('trainval' if per_class else 'train')
        assert val.split == cfg.test_dataloader.dataset.split == 'test'
    else:
        rate = 0.05 * 1024 / 256
        percent = kind.removeprefix('semi-')
        assert train.ann_file == f'meta/train_{percent}.txt'
        assert (train.split, val.split) == ('train', 'val')
        assert 'ann_file' not in val
    nesterov = {} if kind == 'linear' else dict(nesterov=True)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD',
        lr=pytest.approx(rate),
        momentum=0.9,
        weight_decay=pytest.approx(decay),
        **nesterov,
    )
    assert isinstance(cfg.val_evaluator, list) == per_class
    if per_class:
        _, recall = cfg.val_evaluator
        assert recall == dict(type='SingleLabelMetric', items=['recall'])


def test_a_tenth_of_the_digits_is_30_of_each():
    name = (
        'semi_supervised/resnet18-w16_1xb64-semi-10percent-coslr-60e_digits.py'
    )
    indices = load(name).train_dataloader.dataset.indices
    assert len(set(indices)) == len(indices)
    # Class folders of 300 scenes, one after another.
    counts = [sum(i // 300 == digit for i in indices) for digit in range(10)]
    assert counts == [30] * 10


@pytest.mark.parametrize('split', ['train', 'val'])
def test_cifar_reaches_the_network_as_rgb(split):
    cfg = load('finetune/resnet50_1xb256-finetune-coslr-20k_cifar10.py')
    pipeline = Compose(cfg[f'{split}_dataloader'].dataset.pipeline)
    orange = np.full((32, 32, 3), (250, 120, 10), np.uint8)
    sample = pipeline(dict(img=orange, gt_label=1))
    preprocess = MODELS.build(
        dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    )
    batch = dict(inputs=sample['inputs'][None], data_samples=None)
    image = preprocess(batch)['inputs'][0]
    assert image.shape == (3, 224, 224)
    expected = [
        (250 - 123.675) / 58.395,
        (120 - 116.28) / 57.12,
        (10 - 103.53) / 57.375,
    ]
    assert image.mean(dim=(1, 2)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize('name', [*STRUCTURES.values()])
def test_one_iteration_and_one_evaluation(name, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
    cfg = load(name)
    make_data(cfg, tmp_path / 'data')
    shrink(cfg)
    prepare_config(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(cfg)
    model = runner.model
    model.init_weights()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    monkeypatch.setattr(model, 'init_weights', lambda: None)  # it is done
    runner.train()

    assert len(runner.train_dataloader.dataset) >= NUM
    assert len(runner.val_dataloader.dataset) == NUM
    moved = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    head = {'head.fc.weight', 'head.fc.bias'}
    if name in LINEAR:
        assert moved == head
    else:  # all of it; zero-initialized branches get no gradient yet
        assert moved > head
        assert 'backbone.conv1.weight' in moved
        tracked = [k for k in before if k.endswith('num_batches_tracked')]
        assert len(tracked) == 20
        assert moved > {*tracked}

    scalars = runner.message_hub.log_scalars
    assert 0 < scalars['train/loss'].current() < 100
    keys = ['accuracy/top1', 'accuracy/top5']
    if cfg.evaluation.dataset in ('aircraft', 'pets'):
        keys.append('single-label/recall')
    for key in keys:
        assert 0 <= scalars[f'val/{key}'].current() <= 100, key
    result = read_result(tmp_path / 'work' / f'{Path(name).stem}.json')
    assert result.protocol == cfg.evaluation.protocol
    assert result.dataset == cfg.evaluation.dataset
    assert {*keys} <= {*result.metrics}
    (checkpoint,) = (tmp_path / 'work').glob('*_1.pth')
    torch.load(checkpoint, weights_only=True)
