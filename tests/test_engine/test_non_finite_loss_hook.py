# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample

from mmscfs.engine.hooks import NonFiniteLossHook

NAN = math.nan


@pytest.fixture
def runner(tmp_path):
    """A runner whose optimizer's wrapper skips no step, and logs each."""
    return SimpleNamespace(
        message_hub=MessageHub(str(tmp_path)),
        optim_wrapper=SimpleNamespace(),
        hooks=[LoggerHook(interval=1)],
    )


def batch(*names):
    """Images of these names."""
    samples = [DataSample(metainfo=dict(img_path=f'{n}.jpg')) for n in names]
    return dict(data_samples=samples)


def run(runner, *iterations, max_skipped=3, every=1):
    """Run iterations; return what the log gets of each.

    Args:
        iterations (tuple): Figures of each; with ``skipped`` (bool), or None
            where the step is not due, if the optimizer's wrapper skips.
        every (int): Iterations between two lines of the log.
    """
    runner.hooks[0].interval = every
    hook, wrapper = NonFiniteLossHook(max_skipped), runner.optim_wrapper
    logged = []
    for runner.iter, figures in enumerate(iterations):
        outputs = dict(figures)
        if 'skipped' in outputs:
            skipped = outputs.pop('skipped')
            wrapper.should_update = lambda due=skipped is not None: due
            if skipped is not None:
                wrapper.skipped = torch.tensor(float(skipped))
        images = batch(f'{runner.iter + 1}a', f'{runner.iter + 1}b')
        hook.after_train_iter(runner, runner.iter, images, outputs)
        logged.append(outputs)
    hook.after_train_epoch(runner)
    return logged


def stop(runner, *iterations, **kwargs):
    """Return the text with which the hook stops the run."""
    with pytest.raises(FloatingPointError) as error:
        run(runner, *iterations, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    ('value', 'make'), [(math.nan, float), (-math.inf, torch.tensor)]
)
def test_terms_iteration_and_images_are_named(runner, value, make):
    good = dict(loss=make(1.0))
    bad = dict(loss=make(value), loss_dino=make(1.5), loss_layer2=make(value))
    text = stop(runner, good, bad, good, every=3)
    assert (
        f'iteration 2: not finite: loss={value}, loss_layer2={value}; i'
        in text
    )
    assert 'images of process 0: 2a.jpg, 2b.jpg; ' in text


def test_finite_figures_pass(runner):
    figures = dict(
        loss=2 * torch.ones((), requires_grad=True),  # part of a graph
        large=torch.tensor(1e30),
        small=torch.tensor([-1e-30], dtype=torch.float64),
        count=3,
    )
    assert run(runner, figures, {}) == [figures, {}]


def test_remedies_name_the_last_checkpoint(runner):
    bad = dict(loss=NAN)
    text = stop(runner, bad)
    assert 'no checkpoint was saved yet: start again with a lower lear' in text
    assert 'precision' not in text  # which this wrapper lacks
    runner.optim_wrapper.precision = 'fp16'
    assert "precision='bf16'" in stop(runner, bad)
    runner.message_hub.update_info('last_ckpt', 'work_dirs/run/epoch_3.pth')
    text = stop(runner, bad)
    assert 'last good checkpoint, work_dirs/run/epoch_3.pth, by --res' in text
    assert "precision='bf16' or 'fp32', or a lower optim_wrapper.cli" in text


GOOD, SKIP = dict(loss=1.0, skipped=False), dict(loss=1.0, skipped=True)
WAIT = dict(loss=1.0, skipped=None)


def test_skipped_steps_are_logged(runner):
    logged = run(runner, SKIP, GOOD, WAIT, SKIP, WAIT, GOOD)
    assert [figures['skipped'] for figures in logged] == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize('every', [1, 4])
def test_too_many_in_a_row_stop_the_run(runner, every):
    run(runner, SKIP, SKIP, GOOD, SKIP, SKIP, GOOD, every=every)
    # Batches that are accumulated do not break a row.
    steps = GOOD, SKIP, GOOD, SKIP, WAIT, SKIP, WAIT, SKIP, GOOD
    text = stop(runner, *steps, every=every)
    assert '3 steps in a row were skipped, up to iteration 8 (de' in text
    assert 'non_finite_loss.max_skipped=3)' in text
    assert 'first: iteration 4: not finite: a gradient; images of' in text
    assert '4a.jpg, 4b.jpg; no checkpoint' in text


def test_many_images_are_not_all_named(runner):
    with pytest.raises(ValueError, match='max_skipped=0'):
        NonFiniteLossHook(max_skipped=0)
    runner.hooks = []  # no log is due before
    runner.iter, hook = 0, NonFiniteLossHook()
    hook.after_train_iter(runner, 0, batch(*range(40)), dict(loss=NAN))
    with pytest.raises(
        FloatingPointError, match=r' 30.jpg, 31.jpg and 8 more; no checkp'
    ):
        hook.before_val_epoch(runner)


def test_what_is_not_a_number_is_not_saved(runner):
    """Though no figure shows it."""
    runner.hooks = []  # no log is due before
    runner.iter, hook = 5, NonFiniteLossHook()
    state = dict(
        weight=torch.tensor([0.0, math.inf]),
        steps=torch.tensor(3),
        version='1',
    )
    hook.before_save_checkpoint(runner, dict(state_dict=state))
    state['bn.running_var'] = torch.tensor([1.0, NAN])
    with pytest.raises(FloatingPointError, match='5: bn.running_var of the'):
        hook.before_save_checkpoint(runner, dict(state_dict=state))
    hook.after_train_iter(runner, 0, batch('x'), dict(loss=NAN))
    with pytest.raises(FloatingPointError, match='6: not finite: loss=nan;'):
        hook.before_save_checkpoint(runner, dict(state_dict={}))
