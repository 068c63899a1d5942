# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Whole runs of a tiny network through mmengine's runner."""

import copy
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmscfs.checkpoint import read_checkpoint


class Recorder(Hook):
    """Keep what changes, after every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.losses, self.prototypes, self.teacher = [], [], []
        self.centers = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        model = runner.model
        self.losses.append({k: v.item() for k, v in outputs.items()})
        self.prototypes.append(model.neck.prototypes.weight.detach().clone())
        self.teacher.append(model.teacher.neck.mlp[0].weight.clone())
        self.centers.append(model.head.center.value.clone())


def train(cfg, **changes):
    """Run a copy of a config; return the runner and what was recorded."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder


def moved(states):
    """Whether each step changed what was recorded."""
    return [not torch.equal(*pair) for pair in pairwise(states)]


def test_a_resumed_run_equals_one_that_never_stopped(tiny_run, tmp_path):
    whole, expected = train(tiny_run)
    resumed, recorder = train(
        tiny_run,
        work_dir=str(tmp_path / 'resumed'),
        resume=True,
        load_from=f'{tiny_run.work_dir}/epoch_1.pth',
    )
    assert recorder.losses == expected.losses[4:]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    # Prototypes stay for the first of two epochs of four steps.
    assert moved(expected.prototypes) == [False] * 3 + [True] * 4
    # The log has every term.
    (scalars,) = Path(whole.log_dir).glob('vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    last = [line for line in lines if 'loss' in line][-1]
    assert {
        'loss_layer3_search',
        'teacher_entropy',
        'feature_std',
        'teacher_momentum',
        'teacher_temp',
        'lr',
    } <= set(last)
    assert last['loss'] == pytest.approx(
        sum(v for k, v in last.items() if 'loss_' in k), rel=1e-5
    )


def test_accumulated_batches_step_once(tiny_run):
    _, recorder = train(tiny_run, **{'optim_wrapper.accumulative_counts': 2})
    # Iterations 2, 4, 6, 8 step; the first seen here is the second.
    for states in (recorder.teacher, recorder.centers):
        assert moved(states) == [True, False] * 3 + [True]


class Overflow(Hook):
    """Make the gradients of one iteration overflow in fp16."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, *_, **__):
        scaler = runner.optim_wrapper.loss_scaler
        if runner.iter == self.at:
            scaler.update(new_scale=3e38)
        elif runner.iter == self.at + 1:
            scaler.update(new_scale=8.0)


def test_step_skipped_by_fp16_moves_nothing(tiny_run):
    tiny_run.optim_wrapper.update(precision='fp16', init_loss_scale=8.0)
    runner = Runner.from_cfg(tiny_run)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.register_hook(Overflow(at=4))
    runner.train()
    for states in (recorder.prototypes, recorder.teacher, recorder.centers):
        assert moved(states)[3:5] == [False, True]
    state = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())
    skipped = runner.message_hub.get_scalar('train/skipped').data[0]
    assert skipped.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    saved = read_checkpoint(f'{tiny_run.work_dir}/epoch_2.pth')
    assert saved['optimizer']['loss_scaler']['scale'] == 8


class BadBatch(Hook):
    """Make the first activations of a batch not numbers."""

    def __init__(self, at):
        self.at, self.states = at, []

    def before_train(self, runner):
        def spoil(module, inputs, output):
            return output * math.nan if runner.iter == self.at else output

        for network in (runner.model, runner.model.teacher):
            network.backbone.conv1.register_forward_hook(spoil)

    def after_train_iter(self, runner, *_, **__):
        """Keep all weights, and the optimizer's state."""
        values = dict(runner.model.named_parameters())
        optimizer = runner.optim_wrapper.optimizer.state_dict()['state']
        for number, state in optimizer.items():
            values |= {f'{number}.{name}': v for name, v in state.items()}
        self.states.append({k: v.detach().clone() for k, v in values.items()})


@pytest.mark.parametrize(
    ('precision', 'interval'), [('fp32', 1), ('fp16', 50)]
)
def test_a_bad_batch_stops_the_run_and_is_not_saved(
    tiny_run, precision, interval
):
    """It reaches no weight either; the run ends before epoch 2 is saved.

    In fp16 it ends at the next line of the log, after a batch that is good.
    """
    tiny_run.optim_wrapper.precision = precision
    tiny_run.optim_wrapper.init_loss_scale = 8.0
    tiny_run.default_hooks.logger.interval = interval
    runner = Runner.from_cfg(tiny_run)
    bad = BadBatch(at=6)
    runner.register_hook(bad, 'HIGHEST')
    with pytest.raises(
        FloatingPointError, match='iteration 7: not finite: .*loss_dino=nan'
    ) as error:
        runner.train()
    assert 'epoch_1.pth' in str(error.value)
    assert error.value.args[0].count('.jpg') == 4
    assert not Path(tiny_run.work_dir, 'epoch_2.pth').exists()
    state = read_checkpoint(f'{tiny_run.work_dir}/epoch_1.pth')['state_dict']
    assert all(torch.isfinite(v).all() for v in state.values())
    before, *after = bad.states[5:]
    assert len(after) == (0 if interval == 1 else 2)
    for states in after[:1]:
        for name, value in states.items():
            assert torch.equal(value, before[name]), name
    for states in after[1:]:
        assert all(torch.isfinite(value).all() for value in states.values())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model.neck.in_channels': 32}, 'leave model.neck.in_channels out'),
        (
            {'model.search_neck.in_channels': [16, 32, 32]},
            'leave model.search_neck.in_channels out',
        ),
        (
            {
                'model.search': dict(type='RoIFeatureSearch'),
                'train_dataloader.dataset.pipeline.2.meta_keys': ('img_path',),
            },
            "model.search needs to know .*meta_keys=.'img_path', 'crops'",
        ),
        (
            {
                'train_dataloader.dataset.pipeline.1.local_size': 16,
                'optim_wrapper.precision': 'bf16',
            },
            r"cannot take views of shape .3, 16, 16.: .*\(1, 1\).*='fp32'",
        ),
    ],
)
def test_runs_that_cannot_succeed_are_refused(tiny_run, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tiny_run, **changes)
    assert not list(Path(tiny_run.work_dir).glob('*.pth'))


def test_hooks_that_count_epochs_refuse_a_run_without(tiny_run):
    tiny_run.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    with pytest.raises(ValueError, match='TeacherTemperatureHook counts epo'):
        train(tiny_run)


def test_checkpoint_of_another_algorithm_is_refused(tiny_run, tmp_path):
    train(tiny_run)
    checkpoint = Path(tiny_run.work_dir, 'epoch_2.pth')
    before = checkpoint.read_bytes()
    dino = copy.deepcopy(tiny_run)
    del dino.model['search_neck']
    dino.model.update(type='DINO', head=dict(type='DINOHead'))
    with pytest.raises(ValueError, match='not one of this DINO.*left over'):
        train(dino, resume=True)
    assert checkpoint.read_bytes() == before
    assert {p.name for p in Path(dino.work_dir).glob('*.pth')} == {
        'epoch_1.pth',
        'epoch_2.pth',
    }
