# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from mmscfs.engine.hooks import TeacherTemperatureHook
from mmscfs.engine.hooks.dino_hooks import cosine_momentum

CONFIGS = Path(__file__).parents[2] / 'configs'
STEPS = 5  # iterations an epoch
SGD_200 = 'scfs_r50.py'
SGD_500 = 'scfs/scfs_resnet50_16xb32-mcrop-coslr-500e_coco.py'
SGD_800 = 'scfs/scfs_resnet50_32xb32-mcrop-coslr-800e_in1k.py'
ADAMW = 'dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py'
DEMO = 'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
# name, base lr, minimal lr, epochs of warm-up and of the run
RECIPES = [
    (SGD_200, 0.1, 0.0048, 10, 200),
    (SGD_500, 0.2, 0.0048, 10, 500),
    (SGD_800, 0.4, 0.0048, 10, 800),
    (ADAMW, 0.0005, 1e-6, 10, 200),
    (DEMO, 0.003, 1e-6, 1, 14),
]


class SchedulerRunner(Runner):
    """The part of a runner that builds and steps schedulers."""

    train_dataloader = range(STEPS)
    _train_loop = None

    def __init__(self, cfg):
        # A decayed weight and a bias that is not, which never move.
        self.optim_wrapper = build_optim_wrapper(
            nn.Linear(2, 2), dict(cfg.optim_wrapper, precision='fp32')
        )
        self.param_schedulers = self.build_param_scheduler(cfg.param_scheduler)


def run_schedules(name):
    """Return lr and weight decay (iterations, 2 groups) of a whole run."""
    cfg = Config.fromfile(CONFIGS / name)
    runner = SchedulerRunner(cfg)
    hook = ParamSchedulerHook()
    groups = runner.optim_wrapper.optimizer.param_groups
    seen = []
    for iteration in range(cfg.train_cfg.max_epochs * STEPS):
        seen.append([(g['lr'], g['weight_decay']) for g in groups])
        runner.optim_wrapper.step()
        hook.after_train_iter(runner, iteration)
    return np.moveaxis(np.array(seen), -1, 0)


@pytest.mark.parametrize(('name', 'base', 'low', 'warm_up', 'epochs'), RECIPES)
def test_lr_follows_the_closed_form(name, base, low, warm_up, epochs):
    lr, decay = run_schedules(name)
    first, last = warm_up * STEPS, epochs * STEPS
    cosine = low + (base - low) * 0.5 * (
        1 + np.cos(np.pi * np.arange(last - first) / (last - first))
    )
    expected = np.concatenate([np.linspace(0, base, first), cosine])
    assert lr.shape == (last, 2)
    np.testing.assert_array_equal(lr[:, 0], lr[:, 1])
    np.testing.assert_allclose(lr[0], 0, rtol=0, atol=1e-8)
    np.testing.assert_allclose(lr[1:, 0], expected[1:], rtol=1e-6, atol=0)

    # By hand: the middle of the cosine is that of base and minimum, too.
    middle = [(first + last) // 2, (first + last + 1) // 2]
    assert lr[middle, 0].mean() == pytest.approx((base + low) / 2, rel=1e-6)
    near_end = low + (base - low) * math.sin(math.pi / 2 / (last - first)) ** 2
    assert lr[-1, 0] == pytest.approx(near_end, rel=1e-6)
    if name != ADAMW:
        value = 0.04 if name == DEMO else 1e-4
        assert set(decay[:, 0]) == {value}
        assert not decay[:, 1].any()


def test_weight_decay_of_adamw_follows_a_cosine():
    _, decay = run_schedules(ADAMW)
    phase = np.pi * np.arange(1000) / 1000
    np.testing.assert_allclose(
        decay[:, 0], 0.4 - 0.36 * 0.5 * (1 + np.cos(phase)), rtol=1e-6
    )
    assert decay[0, 0] == pytest.approx(0.04, rel=1e-6)
    assert decay[500, 0] == pytest.approx(0.22, rel=1e-6)
    near_end = 0.4 - 0.36 * math.sin(math.pi / 2000) ** 2
    assert decay[-1, 0] == pytest.approx(near_end, rel=1e-6)
    # What is not decayed stays so: exactly 0.
    assert not decay[:, 1].any()


def test_teacher_momentum_follows_a_cosine():
    found = [
        cosine_momentum(iteration, 1000, 0.996, 1.0)
        for iteration in (0, 250, 500, 999, 1000)
    ]
    near_end = 1 - 0.004 * math.sin(math.pi / 2000) ** 2
    expected = [0.996, 0.998 - 0.002 * math.sqrt(0.5), 0.998, near_end, 1.0]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [*np.linspace(0.04, 0.07, 50), *[0.07] * 150]),
        (
            dict(start=0.02, end=0.1, warmup_epochs=5),
            [0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1],
        ),
        # One epoch of warm-up is its last epoch, which has the end value.
        (dict(warmup_epochs=0), [0.07] * 3),
        (dict(warmup_epochs=1), [0.07] * 3),
    ],
)
def test_teacher_temperature_is_linear_then_constant(settings, expected):
    hook = TeacherTemperatureHook(**settings)
    found = [hook.temperature(epoch) for epoch in range(len(expected))]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('setting', [dict(start=0), dict(end=-0.1)])
def test_impossible_temperatures_are_refused(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f'{name}={value} must be'):
        TeacherTemperatureHook(**setting)
