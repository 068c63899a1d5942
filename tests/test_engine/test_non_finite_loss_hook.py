# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.runner import get_priority
from mmpretrain.structures import DataSample
from torch import nn

from mmscfs.engine.hooks import DeferredRuntimeInfoHook, NonFiniteLossHook
from mmscfs.engine.hooks.non_finite_loss_hook import IN_ROW

NAN = math.nan


@pytest.fixture
def runner(tmp_path):
    """A runner in its seventh iteration, of an optimiser that skips none."""
    records = []
    return SimpleNamespace(
        iter=6,
        message_hub=MessageHub(str(tmp_path)),
        optim_wrapper=SimpleNamespace(),
        hooks=[],
        model=nn.BatchNorm1d(2),
        records=records,
        logger=SimpleNamespace(log=lambda *record: records.append(record)),
    )


def end_iteration(runner, outputs):
    """Log an iteration's figures, and check them."""
    hook = NonFiniteLossHook()
    hook.after_train_iter(runner, 6, outputs=outputs)
    RuntimeInfoHook().after_train_iter(runner, 6, outputs=outputs)
    hook.before_train_iter(runner)


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
    assert 'work_dirs/run/epoch_3.pth, is from before: go on' in text
    assert '--resume with a lower optim_wrapper.clip_grad.max_norm' in text
    assert 'learning rate or a longer warm-up takes a new run' in text


def test_without_a_checkpoint_there_is_none_to_resume(runner):
    text = stop(runner, loss=torch.tensor(math.nan))
    assert 'no checkpoint was saved yet' in text
    assert '--resume' not in text
    assert 'start again with a lower learning rate' in text
    assert 'precision' not in text  # which this optimiser's wrapper has not
    runner.optim_wrapper.precision = 'fp16'
    assert "precision='bf16'" in stop(runner, loss=math.nan)


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


def test_acts_before_the_log_and_the_checkpoint():
    own, *others = (
        get_priority(hook.priority)
        for hook in (NonFiniteLossHook, RuntimeInfoHook, CheckpointHook)
    )
    assert own < min(others)


class Log(DeferredRuntimeInfoHook):
    """Waits for the device when a test says so."""

    waiting = False


def batch(iteration):
    """Two images that are named by their iteration."""
    return dict(
        data_samples=[
            DataSample(metainfo=dict(img_path=f'{iteration}{letter}.jpg'))
            for letter in 'ab'
        ]
    )


def run(runner, steps, max_skipped=3, every=1):
    """Run iterations of (loss, skipped); skipped is None if none was due.

    The log is read in each ``every``-th, and at the end.
    """
    hook = NonFiniteLossHook(max_skipped)
    hub, wrapper = runner.message_hub, runner.optim_wrapper
    log = Log()
    runner.hooks = [log]
    wrapper.precision = getattr(wrapper, 'precision', 'fp32')
    wrapper.skipped = False
    hook.before_train(runner)
    for runner.iter, (loss, skipped) in enumerate(steps):
        log.waiting = runner.iter % every != 0
        hook.before_train_iter(runner)
        wrapper.should_update = lambda due=skipped is not None: due
        wrapper.skipped = bool(skipped)
        outputs = dict(loss=torch.tensor(loss))
        hook.after_train_iter(
            runner, runner.iter, batch(runner.iter + 1), outputs
        )
        RuntimeInfoHook().after_train_iter(runner, 0, outputs=outputs)
    hook.after_train_epoch(runner)
    return hub.get_scalar('train/skipped').data[0].tolist()


def test_skipped_steps_are_counted_and_told(runner):
    steps = [(1.0, False), (NAN, True), (1.0, True), (2.0, False)]
    assert run(runner, steps, every=4) == [0, 1, 1, 0]
    ((level, text),) = runner.records
    assert level == logging.WARNING
    assert 'steps skipped: 2' in text
    assert 'iteration 2: not finite: loss=nan' in text
    assert 'images of process 0: 2a.jpg, 2b.jpg' in text
    assert 'iteration 3' not in text


def test_a_gradient_alone_is_told(runner):
    run(runner, [(1.0, False), (1.5, True)])
    text = runner.records[0][1]
    assert 'iteration 2: not finite: a gradient; images' in text
    assert '2a.jpg, 2b.jpg' in text


def test_overflows_of_fp16_are_no_warning(runner):
    runner.optim_wrapper.precision = 'fp16'
    run(runner, [(1.0, True)])
    assert runner.records[0][0] == logging.INFO


@pytest.mark.parametrize('every', [1, 4, 100])
def test_too_many_in_a_row_stop_the_run(runner, every):
    good, bad = (1.0, False), (NAN, True)
    run(runner, [bad, bad, good, bad, bad, good], every=every)
    runner.message_hub.update_info('last_ckpt', 'epoch_3.pth')
    with pytest.raises(FloatingPointError) as error:
        run(runner, [good, bad, good, bad, bad, (1.0, True)], every=every)
    text = str(error.value)
    assert '3 steps in a row were skipped, up to iteration 6 ' in text
    assert 'max_skipped=3' in text
    assert 'The first: iteration 4: not finite: loss=nan' in text
    assert '4a.jpg, 4b.jpg' in text
    assert 'checkpoint, epoch_3.pth, is from before' in text


def test_a_resumed_run_goes_on_counting(runner):
    good, bad = (1.0, False), (NAN, True)
    run(runner, [good, bad, bad])
    # As a run that has loaded the figures of its checkpoint.
    resumed = MessageHub('resumed')
    resumed.load_state_dict(runner.message_hub.state_dict())
    runner.message_hub = resumed
    with pytest.raises(FloatingPointError, match='3 steps in a row'):
        run(runner, [bad, good])


def test_a_checkpoint_counts_the_steps_until_it(runner):
    """mmengine copies the figures before its hooks can check them."""
    hook, wrapper = NonFiniteLossHook(), runner.optim_wrapper
    runner.message_hub.update_info(IN_ROW, 1)
    wrapper.precision, wrapper.skipped = 'fp32', True
    wrapper.should_update = lambda: True
    outputs = dict(loss=torch.tensor(NAN))
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, batch(1), outputs)
    RuntimeInfoHook().after_train_iter(runner, 0, outputs=outputs)
    checkpoint = dict(message_hub=runner.message_hub.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint['message_hub']['runtime_info'][IN_ROW] == 2


def test_a_bad_batch_is_that_of_its_accumulated_step(runner):
    waits, bad = (1.0, None), (NAN, None)
    steps = [bad, (1.0, True), waits, (1.0, False), waits, (1.0, False)]
    assert run(runner, steps) == [0, 1, 0, 0, 0, 0]
    assert 'iteration 1: not finite: loss=nan' in runner.records[0][1]
    # A step that is still to come is not judged.
    run(runner, [waits, (1.0, False), bad])
    with pytest.raises(FloatingPointError, match='iteration 1: not finite'):
        run(runner, [bad, (1.0, False)])


def test_a_taken_step_with_a_bad_figure_stops_at_once(runner):
    with pytest.raises(FloatingPointError, match='iteration 2: .*loss=nan'):
        run(runner, [(1.0, False), (NAN, False)])


def test_many_images_are_not_all_named(runner):
    hook = NonFiniteLossHook()
    samples = [
        DataSample(metainfo=dict(img_path=f'{i}.jpg')) for i in range(40)
    ]
    outputs = dict(loss=torch.tensor(NAN))
    hook.after_train_iter(runner, 6, dict(data_samples=samples), outputs)
    RuntimeInfoHook().after_train_iter(runner, 6, outputs=outputs)
    with pytest.raises(
        FloatingPointError, match=r' 30.jpg, 31.jpg and 8 more; no checkp'
    ):
        hook.check(runner)


@pytest.mark.parametrize(
    'skipped', [True, torch.ones(()), False, torch.zeros(())]
)
def test_a_skipped_step_leaves_no_trace_in_buffers(runner, skipped):
    """Of all batches of the step; on the device as on the host."""
    model = runner.model
    model.register_buffer('queue', torch.arange(6.0))
    model.register_buffer('scratch', torch.zeros(2), persistent=False)
    wrapper, hook = runner.optim_wrapper, NonFiniteLossHook()
    wrapper.skipped = False
    runner.hooks = [log := Log()]
    log.waiting = True  # nothing is logged here
    hook.before_train(runner)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for due in (False, True):
        hook.before_train_iter(runner)
        model(torch.full((3, 2), NAN))
        model.queue[:3] = NAN
        with torch.no_grad():
            model.weight += 1  # no buffer: left to the optimiser
        model.scratch += 1
        wrapper.should_update = lambda due=due: due
        wrapper.skipped = skipped
        hook.after_train_iter(runner, 0, outputs=dict(loss=1.0))
    changed = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    buffers = {'running_mean', 'running_var', 'num_batches_tracked', 'queue'}
    assert changed == {'weight'} | (set() if skipped else buffers)
    assert model.scratch.tolist() == [2, 2]


def test_limit_must_be_positive():
    with pytest.raises(ValueError, match='max_skipped=0'):
        NonFiniteLossHook(max_skipped=0)
