# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""``--precision``, and TF32."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmscfs.engine.optimizers import PerParamClipOptimWrapper
from mmscfs.engine.precision import TF32Hook, set_precision
from mmscfs.engine.screen import build_runner

OURS = dict(type='mmpretrain.PerParamClipOptimWrapper', precision='fp16')
PLAIN = dict(type='OptimWrapper')
MIXED = dict(type='AmpOptimWrapper', loss_scale='dynamic')
HALF = MIXED | dict(dtype='bfloat16')
STATIC = MIXED | dict(loss_scale=512.0)
# What stays, whatever the precision.
OTHERS = dict(
    optimizer=dict(type='SGD', lr=0.1),
    clip_grad=dict(max_norm=3.0),
    accumulative_counts=4,
)


@pytest.mark.parametrize(
    ('wrapper', 'precision', 'expected'),
    [
        (OURS, 'bf16', OURS | dict(precision='bf16')),
        (PLAIN, 'fp32', PLAIN),
        ({}, 'bf16', HALF),  # mmengine's default is OptimWrapper
        (PLAIN, 'auto', MIXED | dict(dtype=None)),
        (HALF, 'fp16', MIXED | dict(dtype='float16')),
        (STATIC, 'bf16', STATIC | dict(dtype='bfloat16')),
        (HALF | dict(type='mmengine.AmpOptimWrapper'), 'fp32', PLAIN),
        (dict(type=OptimWrapper), 'bf16', HALF),  # of a config in Python
    ],
)
def test_precision_alone_changes(wrapper, precision, expected):
    cfg = Config(dict(optim_wrapper=wrapper | OTHERS))
    set_precision(cfg, precision)
    assert cfg.optim_wrapper.to_dict() == expected | OTHERS


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({}, '--precision bf16: the config has no optim_wrapper'),
        (
            dict(optim_wrapper=dict(type='ApexOptimWrapper')),
            "--precision bf16: optim_wrapper.type='ApexOptimWrapper' has a",
        ),
    ],
)
def test_a_precision_that_cannot_be_set(settings, message):
    with pytest.raises(ValueError, match=message):
        set_precision(Config(settings), 'bf16')


@pytest.fixture
def flags():
    """torch's switches, which are as before after the test."""
    found = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [part.allow_tf32 for part in found]
    yield found
    for part, allowed in zip(found, before, strict=True):
        part.allow_tf32 = allowed


@pytest.mark.parametrize(
    ('precision', 'tf32', 'convolutions', 'products'),
    [
        ('fp32', True, True, True),
        ('fp32', False, False, False),
        ('bf16', True, True, False),
        ('bf16', False, True, False),
    ],
)
def test_tf32_is_for_steps_in_fp32(
    precision, tf32, convolutions, products, flags
):
    conv, matmul = flags
    conv.allow_tf32, matmul.allow_tf32 = True, False  # torch's own
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    runner = SimpleNamespace(
        cfg=Config(dict(env_cfg=dict(tf32=tf32))),
        optim_wrapper=PerParamClipOptimWrapper(precision, optimizer=optimizer),
    )
    hook = TF32Hook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert (conv.allow_tf32, matmul.allow_tf32) == (convolutions, products)
    hook.after_train_iter(runner, 0)
    assert not matmul.allow_tf32


def test_every_run_of_ours_has_tf32(tiny_run):
    tiny_run.env_cfg.tf32 = 'yes'
    tiny_run.optim_wrapper.precision = 'fp32'
    runner = build_runner(tiny_run)
    with pytest.raises(ValueError, match="env_cfg.tf32='yes' must be True"):
        runner.train()
