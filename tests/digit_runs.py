# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The digits' configs in the size of a test; any config as plain values."""

import torch
from commands import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

PRETRAIN = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
DETECT = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
VOC_C4 = 'configs/detection/digits/faster-rcnn_r18-w16-c4_demo_digits-voc.py'
KNN = 'configs/classification/knn/knn_resnet18-w16_digits.py'
ONE_ITERATION = (
    'train_dataloader.batch_size=2',
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
)


def save_checkpoint(path):
    """Save a raw checkpoint of the demo's model; its teacher is another."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / PRETRAIN)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for parameter in model.teacher.parameters():
        parameter.data.mul_(0.9).add_(0.05 * torch.randn_like(parameter))
    meta = dict(epoch=14, cfg=cfg.pretty_text, world_size=2)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def coco_options(scenes):
    """Settings that point a detector of the digits at few scenes."""
    annotations = f'{scenes}/annotations/instances_val.json'
    return [
        '--cfg-options',
        *(
            f'{split}_dataloader.dataset.data_root={scenes}'
            for split in ('train', 'val', 'test')
        ),
        *(
            f'{split}_evaluator.ann_file={annotations}'
            for split in ('val', 'test')
        ),
        *ONE_ITERATION,
    ]


def plain(value):
    """Return settings without the scope that mmengine notes in them."""
    if isinstance(value, Config):
        value = value.to_dict()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
