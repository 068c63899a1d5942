# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Resuming at any iteration gives the run that never stopped."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from toy_runs import SAMPLERS, ToyData, assert_same_state, run, toy_cfg

from mmscfs.checkpoint import read_checkpoint


@pytest.fixture(params=['default', 'keyed'])
def epochs(request, tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    cfg.train_dataloader.sampler.type = SAMPLERS[request.param]
    return cfg


def elsewhere(cfg, tmp_path):
    cfg.work_dir = str(tmp_path / 'resumed')
    return cfg


def test_every_checkpoint_resumes_exactly(epochs, tmp_path):
    """In an epoch (2, 4, 6, 8), at an epoch's end (10) and later (12)."""
    whole, expected = run(epochs)
    for iteration in (2, 4, 6, 8, 10, 12):
        resumed, losses = run(
            elsewhere(epochs, tmp_path),
            resume=f'{whole.work_dir}/iter_{iteration}.pth',
        )
        assert losses.values == expected.values[iteration:]
        assert losses.batches == expected.batches[iteration:]
        assert_same_state(resumed, whole)


def test_noise_and_dropout_are_in_the_losses(epochs, tmp_path):
    """So that the test above would see them go wrong."""
    _, expected = run(epochs)
    cfg = elsewhere(epochs, tmp_path)
    cfg.train_dataloader.dataset.noise = 0
    _, without_noise = run(cfg)
    assert without_noise.values[0] != expected.values[0]
    cfg.work_dir = str(tmp_path / 'third')
    cfg.randomness.seed = 4
    assert run(cfg)[1].values[0] != without_noise.values[0]


def test_histories_of_the_log_are_those_of_the_whole_run(tmp_path):
    class Logs(Hook):
        def before_train_epoch(self, runner):
            runner.message_hub.update_scalar('train/began', runner.epoch)

    cfg = toy_cfg(tmp_path / 'whole')
    whole, _ = run(cfg, Logs())
    resumed, _ = run(
        elsewhere(cfg, tmp_path),
        Logs(),
        resume=f'{whole.work_dir}/iter_8.pth',
    )
    for name, count in (('loss', 15), ('lr', 15), ('began', 3)):
        histories = [
            r.message_hub.get_scalar(f'train/{name}').data[0]
            for r in (whole, resumed)
        ]
        assert len(histories[0]) == count
        np.testing.assert_array_equal(*histories)


def test_what_was_trained_on_is_not_loaded_again(tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    whole, _ = run(cfg)
    resumed, _ = run(
        elsewhere(cfg, tmp_path), resume=f'{whole.work_dir}/iter_8.pth'
    )
    loaded = resumed.train_dataloader.dataset.loaded
    # Batches 4 and 5 of the second epoch, and all of the third.
    assert loaded == whole.train_dataloader.dataset.loaded[2 * 8 :]
    assert len(loaded) == 2 * (2 + 5)


def test_workers_pass_over_batches_too(tmp_path):
    cfg = toy_cfg(
        tmp_path / 'whole',
        **{'train_dataloader.dataset.noise': 0},
    )
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    whole, expected = run(cfg)
    resumed, losses = run(
        elsewhere(cfg, tmp_path), resume=f'{whole.work_dir}/iter_4.pth'
    )
    assert losses.values == expected.values[4:]
    assert_same_state(resumed, whole)


@pytest.mark.parametrize('sampler', ['default', 'keyed', 'infinite'])
def test_loops_of_iterations_resume_exactly(sampler, tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    cfg.train_cfg = dict(type='mmpretrain.ResumableIterLoop', max_iters=13)
    cfg.train_dataloader.sampler.type = SAMPLERS[sampler]
    whole, expected = run(cfg)
    # More than two passes over ten images, each in another order.
    loaded = whole.train_dataloader.dataset.loaded
    assert sorted(loaded[:10]) == sorted(loaded[10:20]) == [*range(10)]
    assert loaded[:10] != loaded[10:20]
    for iteration in (4, 10, 12):
        resumed, losses = run(
            elsewhere(cfg, tmp_path),
            resume=f'{whole.work_dir}/iter_{iteration}.pth',
        )
        assert losses.values == expected.values[iteration:]
        loaded_again = resumed.train_dataloader.dataset.loaded
        assert loaded_again == loaded[2 * iteration :]
        assert_same_state(resumed, whole)


class Draws(BaseMetric):
    """A validation that draws from every generator."""

    def process(self, data_batch, data_samples):
        self.results.append(np.random.rand() + torch.rand(()).item())

    def compute_metrics(self, results):
        return dict(mean=sum(results))


@pytest.fixture(params=['epochs', 'iterations'])
def any_cfg(request, tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    if request.param == 'iterations':
        cfg.train_cfg = dict(
            type='mmpretrain.ResumableIterLoop', max_iters=15, val_interval=5
        )
    return cfg


def validate(cfg, metric):
    cfg.val_dataloader = dict(
        batch_size=2,
        num_workers=0,
        persistent_workers=False,
        dataset=dict(type=ToyData),
        sampler=dict(type=SAMPLERS['default'], shuffle=False),
    )
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type=metric)


def test_validation_leaves_the_training_alone(any_cfg, tmp_path):
    _, expected = run(any_cfg)
    validate(any_cfg, Draws)
    _, losses = run(elsewhere(any_cfg, tmp_path))
    assert losses.values == expected.values


class Rises(Draws):
    """A score that draws at random, and is better each time."""

    scores = itertools.count()

    def compute_metrics(self, results):
        super().compute_metrics(results)
        return dict(mean=next(self.scores))


def test_a_best_one_saved_amid_the_validation_resumes_exactly(
    any_cfg, tmp_path
):
    validate(any_cfg, Rises)
    any_cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=5, save_best='mean', rule='greater'
    )
    whole, expected = run(any_cfg)
    resumed, losses = run(
        elsewhere(any_cfg, tmp_path), resume=tmp_path / 'whole/iter_5.pth'
    )
    assert losses.values == expected.values[5:]
    assert_same_state(resumed, whole)


def test_epochs_of_another_length_are_refused_in_their_middle(
    any_cfg, tmp_path
):
    run(any_cfg)
    cfg = any_cfg
    cfg.train_dataloader.batch_size = 5
    # After an epoch, and a validation, all is well.
    run(elsewhere(cfg, tmp_path), resume=tmp_path / 'whole/iter_10.pth')
    with pytest.raises(ValueError, match='batch 3 of 5 .* has 2 batches now'):
        run(
            elsewhere(cfg, tmp_path),
            resume=f'{tmp_path}/whole/iter_8.pth',
        )


def test_fewer_images_than_a_batch(tmp_path):
    cfg = toy_cfg(tmp_path)
    cfg.train_dataloader.batch_size = 11
    cfg.train_dataloader.drop_last = True
    # On epochs of no iteration mmengine asserts without a word on images.
    cfg.param_scheduler = dict(
        type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True
    )
    message = 'batch_size=11: the data set has only 10 images, not one batch'
    with pytest.raises(ValueError, match=message):
        run(cfg)


def test_random_states_of_other_processes_are_not_taken(tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    run(cfg)
    path = tmp_path / 'whole/iter_8.pth'
    checkpoint = read_checkpoint(path)
    info = checkpoint['message_hub']['runtime_info']
    assert len(info['random_states']) == 1
    info['random_states'] *= 2
    torch.save(checkpoint, path)
    resumed, losses = run(elsewhere(cfg, tmp_path), resume=path)
    assert len(losses.values) == 7
    assert resumed.iter == 15
