# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import LinearLR

from mmscfs.engine.hooks import CollapseMonitorHook, LengthHook


@pytest.mark.parametrize(('length', 'warns'), [(16, False), (15, True)])
def test_what_lies_beyond_the_run_is_named(length, warns):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    said, noted = [], []
    runner = SimpleNamespace(
        iter=0,
        max_iters=length,
        param_schedulers=[LinearLR(optimizer, by_epoch=False, end=16)],
        hooks=[CollapseMonitorHook(begin=13, window=3)],
        logger=SimpleNamespace(warning=said.append, info=noted.append),
    )
    LengthHook().before_train(runner)
    end = ', is beyond the end of the run, at 15 iterations'
    warm_up = f'the end of the warm-up, param_scheduler.0.end=16{end}'
    first = 'the first look of default_hooks.collapse_monitor, begin + window'
    assert said == [f'{warm_up}: set it lower'] * warns
    # Not a warning: a run that is so short is a trial.
    assert noted == [f'{first} = 16{end}'] * warns
