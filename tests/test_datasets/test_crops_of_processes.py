# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Two processes, and their workers, never make the same crops."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.runner import Runner

import mmscfs  # noqa: F401

SEED = 5


def load_part(rank, cfg, folder):
    """Read two epochs as one of two processes; save indices and boxes."""
    os.environ.update(LOCAL_RANK=str(rank))
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2
    )
    loader = Runner.build_dataloader(cfg, seed=SEED)
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        samples = [s for batch in loader for s in batch['data_samples']]
        epochs.append(
            dict(
                index=[int(sample.sample_idx) for sample in samples],
                crops=torch.tensor([s.crops.tolist() for s in samples]),
            )
        )
    torch.save(epochs, f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def load(cfg, tmp_path):
    """Return what both processes saw: by epoch, indices and boxes."""
    mp.start_processes(load_part, (cfg, str(tmp_path)), 2, start_method='fork')
    ranks = [
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in (0, 1)
    ]
    return [
        dict(
            index=[epoch['index'] for epoch in epochs],
            crops=torch.cat([epoch['crops'] for epoch in epochs]),
        )
        for epochs in zip(*ranks, strict=True)
    ]


def boxes(epoch):
    """Return the boxes of each image's views."""
    return {tuple(row.flatten().tolist()) for row in epoch['crops']}


@pytest.fixture
def loader_cfg(tiny_run):
    """Sixteen images of one size, so that equal draws give equal boxes."""
    cfg = tiny_run.train_dataloader
    cfg.dataset.pipeline[-1].meta_keys = ('sample_idx', 'crops')
    return cfg


@pytest.mark.parametrize(
    ('sampler', 'workers'),
    [('KeyedSampler', 2), ('DefaultSampler', 0), ('DefaultSampler', 2)],
)
def test_no_two_processes_crop_alike(loader_cfg, tmp_path, sampler, workers):
    loader_cfg.update(
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type=sampler, shuffle=True),
    )
    epochs = load(loader_cfg, tmp_path)
    for epoch in epochs:
        first, second = epoch['index']
        # Each image once, on one of the two.
        assert sorted(first + second) == list(range(16))
        assert len(boxes(epoch)) == 16
    assert epochs[0]['index'] != epochs[1]['index']
    assert not boxes(epochs[0]) & boxes(epochs[1])
