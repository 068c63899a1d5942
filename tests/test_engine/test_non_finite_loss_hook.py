# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.runner import get_priority

from mmscfs.engine.hooks import NonFiniteLossHook


@pytest.fixture
def runner():
    """A runner in its seventh iteration."""
    return SimpleNamespace(
        iter=6, message_hub=MessageHub('test_non_finite_loss')
    )


def end_iteration(runner, outputs):
    """Log an iteration's figures, and check them."""
    RuntimeInfoHook().after_train_iter(runner, 6, outputs=outputs)
    NonFiniteLossHook().after_train_iter(runner, 6, outputs=outputs)


def stop(runner, **outputs):
    """Return the text with which the hook stops the run."""
    with pytest.raises(FloatingPointError) as error:
        end_iteration(runner, outputs)
    return str(error.value)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('make', [float, torch.tensor])
def test_term_and_iteration_are_named(runner, value, make):
    text = stop(runner, loss_dino=make(1.5), loss_layer2=make(value))
    assert 'iteration 7:' in text
    assert f'loss_layer2={value}' in text
    assert 'loss_dino' not in text


def test_every_term_is_named(runner):
    text = stop(
        runner,
        loss=torch.tensor(math.nan),
        loss_dino=torch.tensor(math.inf),
        teacher_entropy=torch.tensor(2.0),
        center_norm=torch.tensor(-math.inf),
    )
    assert 'loss=nan, loss_dino=inf, center_norm=-inf' in text
    assert 'teacher_entropy' not in text


def test_half_precision_overflow_is_found(runner):
    text = stop(runner, loss=torch.tensor(65504.0).half() * 2)
    assert 'loss=inf' in text


def test_last_checkpoint_is_named(runner):
    runner.message_hub.update_info('last_ckpt', 'work_dirs/run/epoch_3.pth')
    text = stop(runner, loss=torch.tensor(math.nan))
    assert 'work_dirs/run/epoch_3.pth' in text
    assert 'resume from' in text


def test_without_a_checkpoint_there_is_none_to_resume(runner):
    text = stop(runner, loss=torch.tensor(math.nan))
    assert 'no checkpoint was saved yet' in text
    assert 'resume from' not in text
    assert 'lower learning rate' in text


@pytest.mark.parametrize('outputs', [None, {}])
def test_nothing_logged_passes(runner, outputs):
    end_iteration(runner, outputs)


def test_finite_figures_pass(runner):
    outputs = dict(
        loss=torch.tensor(1e30),
        zero=torch.tensor(0.0),
        negative=torch.tensor(-1e-30, dtype=torch.float64),
        count=3,
    )
    end_iteration(runner, outputs)


def test_losses_with_a_graph_pass_without_a_warning(runner):
    # As they come from the model: still part of the graph.
    loss = 2 * torch.ones((), requires_grad=True)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            end_iteration(runner, dict(loss=loss))
    finally:
        torch.set_warn_always(False)


def test_acts_after_the_log_and_before_the_checkpoint():
    first, own, last = (
        get_priority(hook.priority)
        for hook in (RuntimeInfoHook, NonFiniteLossHook, CheckpointHook)
    )
    assert first < own < last
