# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmscfs.engine import optimizers
from mmscfs.engine.optimizers import clip_each_gradient_, scale_each_


def test_each_gradient_is_clipped_by_its_own_norm():
    gradients = [
        torch.tensor([3.0, 4.0]),  # norm 5
        torch.tensor([[0.6, 0.8]]),  # norm 1
        torch.zeros(2),
    ]
    clip_each_gradient_(gradients, max_norm=2.0)
    # 1e-6 in the denominator, as in the release.
    assert_close(gradients[0], torch.tensor([1.2, 1.6]) * 5 / 5.000001)
    assert gradients[1].tolist() == torch.tensor([[0.6, 0.8]]).tolist()
    assert gradients[2].tolist() == [0, 0]


def test_clipping_reads_nothing_from_an_accelerator():
    """On the meta device there is nothing to read."""
    gradients = [torch.ones(2, device='meta'), torch.ones(3, device='meta')]
    clip_each_gradient_(gradients, max_norm=1.0)
    with pytest.raises(RuntimeError, match='meta'):
        gradients[0].sum().item()


def test_scaling_many_at_once_is_scaling_one_by_one(monkeypatch):
    """What an accelerator does, of small, strided and large tensors."""
    monkeypatch.setattr(optimizers, 'SMALL', 30)
    shapes = [(5,), (2, 3, 3, 3), (6, 5), (), (0,), (31,)]
    for layout in (torch.contiguous_format, torch.channels_last):
        tensors = [torch.randn(shape) for shape in shapes]
        tensors.append(torch.randn(2, 3, 2, 2).to(memory_format=layout))
        factors = [*torch.rand(len(tensors)).unbind()]
        expected = [
            [number * factor.item() for number in tensor.flatten().double()]
            for tensor, factor in zip(tensors, factors, strict=True)
        ]
        scale_each_(tensors, factors)
        for tensor, numbers in zip(tensors, expected, strict=True):
            wanted = torch.tensor(numbers).float()
            assert torch.equal(tensor.flatten(), wanted)
    scale_each_([], [])


SGD = dict(type='SGD', lr=0.1)
MOMENTUM = SGD | dict(momentum=0.9, weight_decay=0.1)
ADAMW = dict(type='AdamW', lr=0.1, weight_decay=0.1)


def build(model, **changes):
    """The wrapper of a recipe, with changes."""
    recipe = dict(
        type='PerParamClipOptimWrapper',
        constructor='DecayGroupConstructor',
        precision='fp32',
        optimizer=dict(type='SGD', lr=1.0),
    )
    return build_optim_wrapper(model, recipe | changes)


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_step_clips_after_unscaling(precision):
    model = nn.Linear(2, 1)
    optim_wrapper = build(
        model, precision=precision, clip_grad=dict(max_norm=1.0)
    )
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x = torch.tensor([[6.0, 8.0]])
    optim_wrapper.update_params((model(x)).sum())
    # Gradients are (6, 8), clipped to norm 1, and 1, which stays.
    assert_close(model.weight, torch.tensor([[-0.6, -0.8]]), rtol=1e-4, atol=0)
    assert_close(model.bias, torch.tensor([-1.0]), rtol=1e-4, atol=0)


def test_fp16_scaler_is_saved_and_restored():
    model = nn.Linear(2, 1)
    one = build(model, precision='fp16', init_loss_scale=8.0)
    one.update_params(model(torch.ones(1, 2)).sum())
    other = build(model, precision='fp16')
    other.load_state_dict(one.state_dict())
    assert other.loss_scaler.get_scale() == 8.0
    plain = build(model, precision='fp32')
    plain.load_state_dict(one.state_dict())
    assert 'loss_scaler' not in plain.state_dict()


def test_autocast_follows_the_precision():
    model = nn.Linear(2, 2)
    for precision, dtype in (
        ('fp32', torch.float32),
        ('bf16', torch.bfloat16),
        ('fp16', torch.float16),
    ):
        optim_wrapper = build(model, precision=precision)
        with optim_wrapper.optim_context(model):
            assert model(torch.ones(1, 2)).dtype == dtype


def test_auto_precision_on_cpu_follows_the_processor(monkeypatch):
    model = nn.Linear(2, 2)
    for features, expected in (
        ('fpu avx512_bf16', 'bf16'),
        ('fpu amx_bf16 avx2', 'bf16'),
        ('fpu avx2 avx512_bf16x', 'fp32'),
    ):
        monkeypatch.setattr(Path, 'read_text', lambda _, f=features: f)
        assert build(model, precision='auto').precision == expected


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(precision='half'), "precision='half'"),
        (dict(init_loss_scale=0), 'init_loss_scale=0'),
        (dict(clip_grad=dict(max_norm=-1)), "'max_norm': -1"),
        (dict(clip_grad=dict(max_norm=1, norm_type=1)), 'norm_type'),
        (
            dict(paramwise_cfg=dict(norm_decay_mult=0)),
            'paramwise_cfg=.*norm_decay_mult',
        ),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        build(nn.Linear(1, 1), **setting)


def test_groups_with_and_without_decay(scfs_cfg):
    model = MODELS.build(scfs_cfg)
    settings = dict(type='SGD', lr=0.1, weight_decay=1e-4)
    optimizer = build(model, optimizer=settings).optimizer
    decayed, others = optimizer.param_groups
    assert (decayed['weight_decay'], others['weight_decay']) == (1e-4, 0)
    assert all(p.ndim > 1 for p in decayed['params'])
    assert all(p.ndim == 1 for p in others['params'])
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    grouped = [
        id(p) for group in optimizer.param_groups for p in group['params']
    ]
    assert len(grouped) == len(trained)
    assert set(grouped) == trained


@pytest.mark.parametrize(
    ('changes', 'fused'),
    [
        ({}, True),
        (dict(foreach=True), None),
        (dict(fused=False), False),
        (dict(type='ASGD'), None),
        (dict(momentum=0.9, dampening=0.1), None),
    ],
)
def test_steps_on_cpu_are_fused_where_that_is_safe(changes, fused):
    built = build(nn.Linear(2, 2), optimizer=SGD | changes)
    for group in built.optimizer.param_groups:
        assert group.get('fused') is fused


@pytest.mark.parametrize('settings', [MOMENTUM, ADAMW], ids=['SGD', 'AdamW'])
def test_fused_steps_are_those_of_the_plain_loop(settings):
    """With gradients and a resumed state that lie otherwise, too."""
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Conv2d(5, 4, 3).to(memory_format=torch.channels_last)
        built = build(model, optimizer=dict(settings, fused=fused))
        for step in range(4):
            if step == 2:  # as saved by a run without channels last
                saved = built.state_dict()
                for state in saved['state'].values():
                    for name, value in state.items():
                        state[name] = value.contiguous()
                built.load_state_dict(saved)
            model.weight.grad = torch.randn(4, 5, 3, 3)
            if step in (1, 3):  # frozen at first, as prototypes are
                model.bias.grad = torch.randn(4)
            built.step()
            built.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    assert_close(*weights, rtol=1e-6, atol=1e-7)


def parts(built):
    """All parameters, and all of the optimizer's state."""
    optimizer = built.optimizer
    groups = [group['params'] for group in optimizer.param_groups]
    return [
        value.detach().clone()
        for parameter in sum(groups, [])
        for value in (parameter, *optimizer.state[parameter].values())
        if isinstance(value, torch.Tensor)
    ]


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
@pytest.mark.parametrize('optimizer', [MOMENTUM, ADAMW], ids=['SGD', 'AdamW'])
def test_skipped_steps_leave_no_trace(optimizer, clip, precision, fused):
    """Not even in momentum, weight decay and the count of steps.

    Fused steps too, which are skipped on the device.
    """
    ends = []
    for bad_steps in ((), (0, 2, 3)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        built = build(
            model,
            optimizer=optimizer | dict(fused=fused),
            clip_grad=clip,
            precision=precision,
            init_loss_scale=8.0,
        )
        good = 0
        for step in range(3 + len(bad_steps)):
            before = parts(built)
            bad = step in bad_steps
            scale = built.loss_scaler.get_scale()
            x = torch.full((4, 3), good + 1.0)
            built.update_params(model(x).sum() * (math.nan if bad else 1))
            assert bool(built.skipped) is bad
            if bad and step > 0:  # the state is made by the first
                assert_close(parts(built), before, rtol=0, atol=0)
            elif not bad:
                good += 1
                assert all(
                    not torch.equal(*pair)
                    for pair in zip(parts(built)[:1], before, strict=False)
                )
            if bad and precision == 'fp16':
                assert built.loss_scaler.get_scale() == scale / 2
        ends.append(parts(built))
    # As if the bad batches had never been.
    assert_close(*ends, rtol=1e-6, atol=1e-7)


def test_a_bad_batch_spoils_the_step_that_it_accumulates_in():
    model = nn.Linear(2, 1)
    built = build(model, accumulative_counts=2)
    before = parts(built)
    for value in (math.nan, 1.0):
        built.update_params(model(torch.full((1, 2), value)).sum())
    assert built.skipped
    assert_close(parts(built), before)
    for value in (1.0, 1.0):
        built.update_params(model(torch.full((1, 2), value)).sum())
    assert not built.skipped
    assert not torch.equal(parts(built)[0], before[0])


def test_gradients_whose_norm_overflows_are_not_stepped_with():
    model = nn.Linear(2, 1)
    built = build(model, clip_grad=dict(max_norm=1.0))
    before = parts(built)
    built.update_params(1e30 * model(torch.ones(1, 2)).sum())
    assert built.skipped
    assert_close(parts(built), before)
