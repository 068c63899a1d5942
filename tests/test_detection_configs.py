# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every detector's config: its settings, and a run of one iteration."""

import copy
import gc
from functools import cache
from pathlib import Path

import pytest
import torch
from detection_data import leaf_datasets, make_data, shrink
from mmdet.datasets import CocoDataset, VOCDataset
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmscfs.engine import adapt_to_cpu

ROOT = Path(__file__).parents[1] / 'configs' / 'detection'
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py'))
FULL = [name for name in CONFIGS if not name.startswith('digits/')]
COCO = [name for name in FULL if name.startswith('coco/')]
VOC = [name for name in FULL if name.startswith('voc/')]
C4 = [name for name in CONFIGS if '-c4' in name]
DIGITS = tuple('0123456789')


@cache
def read(name):
    return Config.fromfile(ROOT / name)


def load(name):
    return copy.deepcopy(read(name))


def transforms(cfg, split, kind):
    """Return the transforms of a kind, one from each data set."""
    return [
        transform
        for dataset in leaf_datasets(cfg[f'{split}_dataloader'].dataset)
        for transform in dataset.pipeline
        if transform.type == kind
    ]


def test_every_config_is_found():
    names = [
        f'coco/mask-rcnn_r{depth}-{neck}_{length}x_coco.py'
        for depth in (50, 101)
        for neck in ('c4', 'fpn')
        for length in (1, 2)
    ]
    names += [
        f'voc/faster-rcnn_r{depth}-c4_24k_voc0712.py' for depth in (50, 101)
    ]
    assert sorted(names) == FULL
    assert len(CONFIGS) == len(FULL) + 2


@pytest.mark.parametrize('name', CONFIGS)
def test_runtime(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmdet'
    assert cfg.custom_imports.imports == [
        'mmscfs',
        'mmscfs.models.shared_heads',
    ]
    plain = cfg.default_hooks.plain_checkpoint
    assert plain.type == 'mmpretrain.PlainCheckpointHook'
    assert cfg.load_from is None


@pytest.mark.parametrize('name', CONFIGS)
def test_backbone_is_as_pre_trained_and_trained_whole(name):
    model = load(name).model
    backbone = model.backbone
    assert backbone.type == 'ResNet'
    assert backbone.style == 'pytorch'
    assert backbone.frozen_stages == -1
    assert backbone.norm_eval is False
    assert backbone.init_cfg is None  # nothing is downloaded
    assert 'shared_head' not in model.roi_head or (
        model.roi_head.shared_head.get('init_cfg') is None
    )
    settings = model.data_preprocessor
    assert settings.bgr_to_rgb is True
    assert settings.mean == [123.675, 116.28, 103.53]
    assert settings.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize('name', FULL)
def test_depth_is_in_the_name(name):
    model = load(name).model
    depth = 101 if '_r101-' in name else 50
    assert model.backbone.depth == depth
    if '-c4_' in name:
        assert model.roi_head.shared_head.depth == depth


@pytest.mark.parametrize('name', FULL)
def test_norm_is_synchronised_and_trained_in_what_is_new(name):
    model = load(name).model
    sync = dict(type='SyncBN', requires_grad=True)
    assert model.backbone.norm_cfg == sync
    head = model.roi_head
    if name in C4:
        assert head.shared_head.type == 'SharedResStage'
        assert head.shared_head.norm_cfg == sync
        assert head.shared_head.extra_norm is True
    else:
        assert model.neck.norm_cfg == sync
        assert head.bbox_head.type == 'Shared4Conv1FCBBoxHead'
        assert head.bbox_head.norm_cfg == sync
        assert head.mask_head.norm_cfg == sync


@pytest.mark.parametrize('name', FULL)
def test_batch_and_optimiser(name):
    cfg = load(name)
    assert cfg.train_dataloader.batch_size == 2  # on each of 8 GPUs
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001
    )


@pytest.mark.parametrize('name', COCO)
def test_coco_schedule_and_scales(name):
    cfg = load(name)
    twice = '_2x_' in name
    assert cfg.train_cfg.max_epochs == (24 if twice else 12)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, warm_up.by_epoch) == (500, False)
    assert steps.milestones == ([16, 22] if twice else [8, 11])
    assert (steps.gamma, steps.by_epoch) == (0.1, True)
    (train,) = transforms(cfg, 'train', 'RandomChoiceResize')
    assert train.scales == [
        (1333, side) for side in (640, 672, 704, 736, 768, 800)
    ]
    (test,) = transforms(cfg, 'test', 'Resize')
    assert test.scale == (1333, 800)
    assert cfg.val_evaluator.metric == ['bbox', 'segm']


@pytest.mark.parametrize('name', VOC)
def test_voc_schedule_data_and_evaluator(name):
    cfg = load(name)
    assert cfg.train_cfg.max_iters == 24000
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, steps.end) == (100, 24000)
    assert steps.milestones == [18000, 22000]
    assert steps.gamma == 0.1
    assert not warm_up.by_epoch
    assert not steps.by_epoch
    assert cfg.default_hooks.checkpoint.by_epoch is False
    train = [*leaf_datasets(cfg.train_dataloader.dataset)]
    assert [dataset.ann_file for dataset in train] == [
        'VOC2007/ImageSets/Main/trainval.txt',
        'VOC2012/ImageSets/Main/trainval.txt',
    ]
    (test,) = leaf_datasets(cfg.test_dataloader.dataset)
    assert test.ann_file == 'VOC2007/ImageSets/Main/test.txt'
    for resize in transforms(cfg, 'train', 'RandomChoiceResize'):
        assert len(resize.scales) == 11
        assert resize.scales[0] == (1333, 480)
        assert resize.scales[-1] == (1333, 800)
    (resize,) = transforms(cfg, 'test', 'Resize')
    assert resize.scale == (1333, 800)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'VOCMetric'
        assert evaluator.eval_mode == '11points'
        assert evaluator.iou_thrs == pytest.approx(
            [0.5 + 0.05 * i for i in range(10)]
        )
    assert cfg.model.roi_head.bbox_head.num_classes == 20


@pytest.mark.parametrize('name', CONFIGS)
def test_schedule_ends_with_the_run(name):
    cfg = load(name)
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].get(
        'begin'
    ) or (cfg.param_scheduler[1].begin == 0)
    assert cfg.param_scheduler[-1].end == length


class Poison(Hook):
    """Make the weights not numbers, after they were initialised."""

    def before_train(self, runner):
        with torch.no_grad():
            runner.model.rpn_head.rpn_cls.bias.fill_(torch.nan)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    cfg = load('digits/mask-rcnn_r18-w16-fpn_demo_digits.py')
    make_data(cfg, tmp_path / 'data', DIGITS)
    shrink(cfg)
    adapt_to_cpu(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Poison())
    with pytest.raises(FloatingPointError) as error:
        runner.train()
    text = str(error.value)
    assert 'iteration 1: not finite: loss=nan' in text
    assert 'loss_rpn_cls=nan' in text
    assert '.jpg' in text
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.parametrize('name', CONFIGS)
def test_one_iteration_and_one_evaluation(name, tmp_path):
    cfg = load(name)
    digits = name.startswith('digits/')
    if digits:
        classes = DIGITS
    elif name in VOC:
        classes = VOCDataset.METAINFO['classes']
    else:
        classes = CocoDataset.METAINFO['classes']
    make_data(cfg, tmp_path / 'data', classes)
    shrink(cfg)
    adapt_to_cpu(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    if not digits:  # half a gigabyte
        cfg.default_hooks.checkpoint = None
    runner = Runner.from_cfg(cfg)
    model = runner.model
    before = {
        key: value.detach().clone() for key, value in model.named_parameters()
    }
    runner.train()

    # Whatever starts from a backbone is trained, its norm too: biases, which
    # start at 0, show the smallest step of the warm-up.
    assert all(value.requires_grad for value in model.parameters())
    moved = {
        key
        for key, value in model.named_parameters()
        if not torch.equal(value, before[key])
    }
    layer4 = 'roi_head.shared_head' if name in C4 else 'backbone'
    for key in (
        'backbone.conv1.weight',
        'backbone.bn1.bias',
        'backbone.layer3.0.downsample.0.weight',
        'backbone.layer3.0.downsample.1.bias',
        f'{layer4}.layer4.0.downsample.1.bias',
    ):
        assert key in moved, key
    assert not [
        key
        for key, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not module.num_batches_tracked
    ]
    if name in C4:
        assert 'roi_head.shared_head.norm.bias' in moved
        assert not hasattr(model.backbone, 'layer4')

    scalars = runner.message_hub.log_scalars
    assert 0 < scalars['train/loss'].current() < 100
    if cfg.val_evaluator.type == 'VOCMetric':
        keys = [f'pascal_voc/{key}' for key in ('mAP', 'AP50', 'AP75')]
    else:
        keys = [
            f'coco/{what}_mAP{threshold}'
            for what in ('bbox', 'segm')
            for threshold in ('', '_50', '_75')
        ]
    for key in keys:
        assert 0 <= scalars[f'val/{key}'].current() <= 1, key
    if digits:
        (checkpoint,) = (tmp_path / 'work').glob('*.pth')
        torch.load(checkpoint, weights_only=True)
    del runner, model
    gc.collect()
