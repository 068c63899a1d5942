# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Small runs of mmpretrain's algorithms and of CO2, for their tests."""

import copy
from pathlib import Path
from types import SimpleNamespace

import torch
from classification_data import draw
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmscfs.engine import prepare_config

# As after --cfg-options: the network of the digits' evaluations, 20 images.
SMALL = {
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.dataset.pipeline.1.global_size': 32,
    'train_dataloader.dataset.serialize_data': False,  # it collects garbage
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 16,
    'model.backbone.base_channels': 16,
    'model.neck.in_channels': 128,
    'optim_wrapper.optimizer.lr': 0.01,
    'train_cfg.max_epochs': 2,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
    'log_level': 'ERROR',
}


class Recorder(Hook):
    """Keep the losses, and let no iteration depend on those before it.

    MoCo encodes its keys in a random order, which moves the last bits, and
    PyTorch's generator is not in a checkpoint.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.losses = []

    def before_train_iter(self, runner, *_, **__):
        torch.manual_seed(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append({k: v.item() for k, v in outputs.items()})


def train(cfg: Config, **changes) -> tuple[Runner, list[dict]]:
    """Run a copy of a config as tools/train.py does."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder.losses


def train_small(
    cfg: Config, images: Path, folder: Path, options: dict
) -> SimpleNamespace:
    """Train two epochs of five iterations of a config made small."""
    init_default_scope('mmpretrain')
    cfg.merge_from_dict(SMALL | options)
    cfg.train_dataloader.dataset.data_root = str(images)
    cfg.work_dir = str(folder)
    runner, losses = train(cfg)
    return SimpleNamespace(
        cfg=cfg,
        model=runner.model,
        losses=losses,
        folder=folder,
        checkpoint=folder / 'epoch_2.pth',
    )


def draw_images(folder: Path) -> Path:
    """Draw two classes, dark and bright: 20 images to learn and 4 to test."""
    for split, count in (('train', 10), ('val', 2)):
        for label in range(2):
            for i in range(count):
                draw(folder / split / str(label) / f'{i}.jpg', label, i)
    return folder
