# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every detector's config: its settings, and a run of one iteration."""

import copy
import gc
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import load_tool
from detection_data import make_data, shrink
from digit_runs import plain
from mmdet.datasets import CocoDataset, VOCDataset
from mmdet.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmscfs.engine.prepare import adapt_to_cpu

ROOT = Path(__file__).parents[1] / 'configs' / 'detection'
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py'))
FPN = 'coco/mask-rcnn_r50-fpn_1x_coco.py'
HEADS = 'coco/mask-rcnn_r50-fpn-4conv1fc_1x_coco.py'
C4 = 'coco/mask-rcnn_r50-c4_1x_coco.py'
VOC = 'voc/faster-rcnn_r50-c4_24k_voc0712.py'
FASHION = 'fashion/mask-rcnn_r18-w16-fpn_fashion.py'
SMALL = [name for name in CONFIGS if name.startswith(('digits/', 'fashion/'))]
# All others are one of these in another depth or length.
TYPICAL = [FPN, C4, VOC]
OTHERS = sorted({*CONFIGS} - {*TYPICAL, *SMALL})
HOOKS = ('PlainCheckpointHook', 'NonFiniteLossHook', 'SafeCheckpointHook')
LENGTH = re.compile(r'_(\d)x_')
CLASSES = {
    'coco': CocoDataset.METAINFO['classes'],
    'voc': VOCDataset.METAINFO['classes'],
    'digits': tuple('0123456789'),
    'fashion': load_tool('dataset_converters/make_fashion_scenes').CLASSES,
}


@cache
def read(name):
    return Config.fromfile(ROOT / name)


def load(name):
    return copy.deepcopy(read(name))


def test_every_config_is_found():
    assert (len(CONFIGS), len(SMALL), len(OTHERS)) == (14, 3, 8)


@pytest.mark.parametrize('name', OTHERS)
def test_others_differ_by_what_their_name_says(name):
    cfg = load(name)
    base = LENGTH.sub('_1x_', name).replace('_r101-', '_r50-')
    typical = load(base.replace('-4conv1fc', ''))
    if '-4conv1fc' in name:
        sync = dict(type='SyncBN', requires_grad=True)
        heads = typical.model.roi_head
        heads.bbox_head.update(type='Shared4Conv1FCBBoxHead', norm_cfg=sync)
        heads.mask_head.norm_cfg = sync
    if '_r101-' in name:
        typical.model.backbone.depth = 101
        if 'shared_head' in typical.model.roi_head:
            typical.model.roi_head.shared_head.depth = 101
    if length := LENGTH.search(name):
        schedule = f'mmdet::_base_/schedules/schedule_{length[1]}x.py'
        for part, settings in get_config(schedule).items():
            typical[part] = settings
        typical.train_cfg.type = 'mmpretrain.ResumableEpochLoop'
        assert cfg.train_cfg.max_epochs == 12 * int(length[1])
    assert plain(cfg) == plain(typical)


@pytest.mark.parametrize('name', [*TYPICAL, *SMALL])
def test_backbone_is_as_pre_trained_and_trained_whole(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmdet'
    assert 'mmscfs' in cfg.custom_imports.imports
    hooks = {hook.type for hook in cfg.default_hooks.values()}
    assert {f'mmpretrain.{kind}' for kind in HOOKS} <= hooks
    assert cfg.load_from is None
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.style) == ('ResNet', 'pytorch')
    assert backbone.frozen_stages == -1
    assert backbone.norm_eval is False
    assert backbone.init_cfg is None  # nothing is downloaded
    shared_head = cfg.model.roi_head.get('shared_head', {})
    assert shared_head.get('init_cfg') is None
    settings = cfg.model.data_preprocessor
    assert settings.bgr_to_rgb is True
    assert settings.mean == [123.675, 116.28, 103.53]
    assert settings.std == [58.395, 57.12, 57.375]
    if name in TYPICAL:  # norms are synchronized and trained
        sync = dict(type='SyncBN', requires_grad=True)
        assert (backbone.depth, backbone.norm_cfg) == (50, sync)
        if shared_head:
            assert shared_head.type == 'SharedResStage'
            assert (shared_head.depth, shared_head.norm_cfg) == (50, sync)
            assert shared_head.extra_norm is True
        else:
            assert cfg.model.neck.norm_cfg == sync


@pytest.mark.parametrize(
    ('name', 'heads', 'norms'),
    [(FPN, 'Shared2FCBBoxHead', 0), (HEADS, 'Shared4Conv1FCBBoxHead', 8)],
)
def test_heads_of_the_paper_and_of_the_variant(name, heads, norms):
    """MoCo's table: standard heads; norm in backbone and FPN only."""
    model = MODELS.build(load(name).model)
    assert type(model.roi_head.bbox_head).__name__ == heads
    counts = {
        part: sum(isinstance(m, _BatchNorm) for m in module.modules())
        for part, module in model.named_children()
    }
    # 53 of a ResNet-50; four lateral and four output convolutions of the FPN;
    # four convolutions in each of the variant's heads.
    assert counts == dict(
        data_preprocessor=0, backbone=53, neck=8, rpn_head=0, roi_head=norms
    )
    model.train()
    assert all(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize('name', TYPICAL)
def test_batch_optimizer_and_length(name):
    """mmdet's, whose rate is for 8 GPUs with 2 images each."""
    cfg = load(name)
    ours = plain(cfg)
    theirs = plain(get_config('mmdet::_base_/schedules/schedule_1x.py'))
    assert cfg.train_dataloader.batch_size == 2
    for part in ('optim_wrapper', 'auto_scale_lr'):
        assert ours[part] == theirs[part]
    if name == VOC:
        assert cfg.train_cfg.type == 'mmpretrain.ResumableIterLoop'
        assert cfg.train_cfg.max_iters == 1000 * int(VOC.split('_')[2][:-1])
        assert cfg.default_hooks.checkpoint.by_epoch is False
        assert cfg.model.roi_head.bbox_head.num_classes == 20
    else:
        assert ours['param_scheduler'] == theirs['param_scheduler']
        assert ours['train_cfg'] == theirs['train_cfg'] | dict(
            type='mmpretrain.ResumableEpochLoop'
        )
        assert cfg.val_evaluator.metric == ['bbox', 'segm']


def test_the_evaluator_of_voc_reads_as_the_papers_table():
    """By hand: boxes of 10 x 10 px, whose last pixel is inside.

    Three to find, in the order of the scores: a hit of IoU 1; IoU 9 x 8 / 100
    = 0.72; nothing there; IoU 9 x 6 / 100 = 0.54. So the precision that is
    reached at a recall of 0, 0.1, ... 1 is

    - at IoU 0.50: 1 up to recall 2/3, then 3/4: (7 x 1 + 4 x 0.75) / 11
    - at 0.55 to 0.70: 1 up to recall 2/3, then 0: 7 / 11
    - at 0.75 to 0.95: 1 up to recall 1/3, then 0: 4 / 11
    """
    truth = [[0, 0, 9, 9], [20, 0, 29, 9], [0, 30, 9, 39]]
    found = [truth[0], [20, 0, 28, 7], [60, 60, 69, 69], [0, 30, 8, 35]]
    parts = {}
    for name, boxes in (
        ('gt_instances', truth),
        ('ignored_instances', []),
        ('pred_instances', found),
    ):
        parts[name] = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.long),
            scores=torch.tensor([0.9, 0.8, 0.6, 0.5]),
        )
    metric = METRICS.build(load(VOC).val_evaluator)
    metric.dataset_meta = dict(classes=('cat',))
    metric.process(None, [parts])
    result = metric.evaluate(1)
    by_threshold = [10 / 11, *[7 / 11] * 4, *[4 / 11] * 5]
    assert result.pop('pascal_voc/mAP') == pytest.approx(
        sum(by_threshold) / 10, abs=1e-6
    )
    # Every threshold has its own key, rounded.
    assert result == {
        f'pascal_voc/AP{50 + 5 * i}': round(ap, 3)
        for i, ap in enumerate(by_threshold)
    }


# tests/test_tools/test_transfer.py trains those of the digits.
@pytest.mark.parametrize('name', [C4, VOC, FASHION])
def test_one_iteration_and_one_evaluation(name, tmp_path):
    cfg = load(name)
    make_data(cfg, tmp_path / 'data', CLASSES[name.split('/')[0]])
    shrink(cfg)
    adapt_to_cpu(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    if name in TYPICAL:  # half a gigabyte
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
    is_c4 = '-c4_' in name
    layer4 = 'roi_head.shared_head' if is_c4 else 'backbone'
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
    if is_c4:
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
    if name in SMALL:
        (checkpoint,) = (tmp_path / 'work').glob('*.pth')
        torch.load(checkpoint, weights_only=True)
    del runner, model
    gc.collect()
