# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of what the configs promise of the loader's processes and memory."""

import os

import cv2
import pytest
import torch
from mmengine.runner import Runner


def report(results):
    """Replace a sample by what its process is like."""
    del results
    return dict(
        process=os.getpid(),
        opencv=cv2.getNumThreads(),
        torch=torch.get_num_threads(),
    )


@pytest.fixture
def _three_threads():
    """Threads to lose: on one core, there would be one anyway."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    torch.set_num_threads(3)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures('_three_threads')
@pytest.mark.parametrize('setting', ['as configured', 3])
def test_each_worker_has_one_thread(tiny_run, setting):
    """A run with three threads of OpenCV would show."""
    tiny_run.train_dataloader.update(num_workers=2, persistent_workers=True)
    if setting != 'as configured':
        tiny_run.env_cfg.mp_cfg.opencv_num_threads = setting
    runner = Runner.from_cfg(tiny_run)
    assert runner.model.data_preprocessor._non_blocking
    loader = runner.build_dataloader(runner._train_dataloader, seed=0)
    loader.dataset.pipeline.transforms[:] = [report]
    epochs = [list(loader) for _ in range(2)]
    seen = {
        name: {v for b in batches for v in b[name].tolist()}
        for batches in epochs
        for name in batches[0]
    }
    assert len(seen['process']) == 2
    assert os.getpid() not in seen['process']
    # Persistent: the second epoch's are the first's.
    first = {v for b in epochs[0] for v in b['process'].tolist()}
    assert seen['process'] == first
    assert seen['opencv'] == ({1} if setting == 'as configured' else {3})
    assert seen['torch'] == {1}
