# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Runs of one layer, which draw at random in the model and in the data.

Also what runs of real networks share: fixed weights, and several processes.
"""

import copy
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmscfs.datasets import KeyedSampler
from mmscfs.datasets.samplers import SampleKey
from mmscfs.engine import prepare_config

SAMPLERS = dict(
    default=DefaultSampler, keyed=KeyedSampler, infinite=InfiniteSampler
)


class ToyData(Dataset):
    """Vectors with noise that no key decides; remembers what was loaded."""

    def __init__(self, length=10, noise=0.1):
        self.length, self.noise, self.loaded = length, noise, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.loaded.append(int(index))
        vector = np.linspace(index, index + 1, 4)
        if self.noise:
            vector += np.random.normal(0, self.noise, 4)
        return dict(inputs=torch.tensor(vector, dtype=torch.float32))


class ToyModel(BaseModel):
    """A layer with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(
            nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)
        )

    def forward(self, inputs, mode='tensor', **_):
        output = self.layer(torch.stack([*inputs]))
        if mode == 'loss':
            return dict(loss=(output - 1).square().mean())
        return output


class Losses(Hook):
    """Keep the loss of every iteration, and its number in the epoch."""

    def __init__(self):
        self.values, self.batches = [], []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.values.append(outputs['loss'].item())
        self.batches.append(batch_idx)


def toy_cfg(work_dir, **changes):
    """A run of 3 epochs of 5 batches of 2, saved after every second one."""
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type=ToyModel),
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(type=ToyData),
                sampler=dict(type=DefaultSampler, shuffle=True),
                collate_fn=dict(type=pseudo_collate),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
            ),
            param_scheduler=dict(type='CosineAnnealingLR', by_epoch=False),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=2
                ),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=3),
            log_level='ERROR',
        )
    )
    cfg.merge_from_dict(changes)
    prepare_config(cfg)
    return cfg


def run(cfg, *hooks, resume=None):
    """Run a copy of a config; return the runner and its losses."""
    cfg = copy.deepcopy(cfg)
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    # As a new process would begin.
    np.random.seed(99)
    torch.manual_seed(99)
    runner = Runner.from_cfg(cfg)
    losses = Losses()
    for hook in (losses, *hooks):
        runner.register_hook(hook)
    runner.train()
    return runner, losses


def assert_same_state(one, other):
    """Both runs end with the same weights, momentum and schedule."""
    assert one.iter == other.iter
    assert one.epoch == other.epoch
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    states = [r.optim_wrapper.state_dict()['state'] for r in (one, other)]
    for key, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][key][name]), name
    schedules = [r.param_schedulers[0].state_dict() for r in (one, other)]
    assert schedules[0] == schedules[1]


def set_weights(module):
    """Set every parameter from one seed."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            shape = parameter.shape
            parameter.copy_(0.2 * torch.randn(shape, generator=generator))


def in_processes(function, world, folder, *arguments):
    """Return what ``function`` returns in each process of a group.

    They are forked, so that they need not import everything again.
    """
    mp.start_processes(
        _part, (world, function, folder, arguments), world, start_method='fork'
    )
    files = [folder / f'returned_{rank}.pth' for rank in range(world)]
    return [torch.load(file, weights_only=True) for file in files]


def _part(rank, world, function, folder, arguments):
    os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1')
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=world,
    )
    torch.save(function(*arguments), folder / f'returned_{rank}.pth')
    dist.destroy_process_group()


def teacher_outputs(runner, images, count):
    """Return what the teacher makes of views of seed 2023, drawn by hand.

    Returns:
        list[Tensor]: float32 maps (images * count, C, H, W) of each layer.
    """
    dataset = runner.train_dataloader.dataset
    load, crop = dataset.pipeline.transforms[:2]
    crop.num_local = 0
    views = []
    for place in range(images):
        drawn = []
        for draw in range(count):
            info = dataset.get_data_info(place)
            info['sample_idx'] = SampleKey(place, 2023, draw)
            drawn += crop(load(info))['img']
        views += drawn[:count]
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    x = torch.stack(views).float()[:, [2, 1, 0]]  # to RGB
    x = ((x.movedim(1, -1) - mean) / std).movedim(-1, 1)
    with torch.no_grad():
        return [*runner.model.eval().teacher.backbone(x)]
