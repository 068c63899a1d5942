# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import LinearLR
from mmengine.runner import Runner

from mmscfs.engine.hooks import CollapseMonitorHook, LengthHook


@pytest.mark.parametrize(('length', 'warns'), [(16, False), (15, True)])
def test_what_lies_beyond_the_run_is_named(length, warns):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    said, noted = [], []
    runner = SimpleNamespace(
        cfg={},
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


class Keep(Hook):
    """Keep the learning rate and the teacher's momentum of each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.rates, self.momenta = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])

    def after_train_iter(self, runner, *_, **__):
        hub = runner.message_hub.get_scalar('train/teacher_momentum')
        self.momenta.append(hub.current())


def train(cfg):
    runner, keep, said = Runner.from_cfg(cfg), Keep(), []
    runner.logger.warning = said.append
    for hook in (LengthHook(), keep):
        runner.register_hook(hook)
    runner.train()
    return keep, [text for text in said if '(saved: ' in text]


def test_a_resumed_run_of_another_length_says_what_follows_it(tiny_run):
    """Two epochs of four steps, by a cosine from 0.01 to 0.002."""
    tiny_run.param_scheduler = [
        dict(
            type='CosineAnnealingLR',
            eta_min=0.002,
            end=2,
            convert_to_iter_based=True,
        )
    ]
    keep, said = train(tiny_run)
    assert not said
    tiny_run.resume = True
    tiny_run.load_from = f'{tiny_run.work_dir}/epoch_1.pth'
    assert train(tiny_run)[1] == []  # of the same length

    tiny_run.train_cfg.max_epochs = 3
    tiny_run.param_scheduler[0].end = 3
    tiny_run.default_hooks.teacher_temp.warmup_epochs = 3
    longer, (text,) = train(tiny_run)
    momenta = [
        1 - 0.004 * (1 + math.cos(math.pi * 4 / steps)) / 2
        for steps in (8, 12)
    ]
    assert text == (
        'train_cfg.max_epochs=3 (saved: 2); the schedules are the '
        "checkpoint's, of 2 epochs: the learning rate, now 0.006, stays at "
        'its last value from there on; to the new length changes the '
        f"teacher's momentum {momenta[0]:.6g} -> {momenta[1]:.6g}, "
        'default_hooks.teacher_temp.warmup_epochs 2 -> 3; for schedules of '
        'the new length, start a new run from these weights in another '
        f'--work-dir: --cfg-options load_from={tiny_run.load_from}'
    )
    # It is so.
    assert longer.rates[:4] == keep.rates[4:]
    assert longer.rates[0] == pytest.approx(0.006)
    last = 0.002 + 0.008 * (1 + math.cos(math.pi * 7 / 8)) / 2
    assert longer.rates[3:] == pytest.approx([last] * 5)
    assert longer.momenta[0] == pytest.approx(momenta[1], rel=1e-12)
    assert keep.momenta[4] == pytest.approx(momenta[0], rel=1e-12)

    tiny_run.train_cfg.max_epochs = 2
    tiny_run.load_from = f'{tiny_run.work_dir}/epoch_2.pth'
    del tiny_run.default_hooks['teacher']
    _, (text,) = train(tiny_run)
    assert 'now 0.0023, does not reach its end' in text
