# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Two processes, and their workers, never make the same crops."""

import pytest
import torch
from mmengine.runner import Runner
from toy_runs import in_processes


def read(cfg):
    """Return the indices and boxes of two epochs, as one of two processes."""
    loader = Runner.build_dataloader(cfg, seed=5)
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
    return epochs


def boxes(parts):
    """Return the boxes of each image's views."""
    rows = torch.cat([part['crops'] for part in parts])
    return {tuple(row.flatten().tolist()) for row in rows}


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
    epochs = [*zip(*in_processes(read, 2, tmp_path, loader_cfg), strict=True)]
    for parts in epochs:
        # Each image once, on one of the two.
        indices = [index for part in parts for index in part['index']]
        assert sorted(indices) == list(range(16))
        assert len(boxes(parts)) == 16
    first, second = epochs
    assert [p['index'] for p in first] != [p['index'] for p in second]
    assert not boxes(first) & boxes(second)
