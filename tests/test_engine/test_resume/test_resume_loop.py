# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Resuming at any iteration gives the run that never stopped."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from toy_runs import (
    SAMPLERS,
    ToyData,
    assert_same_state,
    in_processes,
    run,
    toy_cfg,
)

from mmscfs.checkpoint import read_checkpoint


@pytest.fixture
def cfg(tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    cfg.train_dataloader.sampler.type = SAMPLERS['keyed']
    return cfg


def elsewhere(cfg, tmp_path):
    cfg.work_dir = str(tmp_path / 'resumed')
    return cfg


@pytest.mark.parametrize('sampler', ['default', 'keyed'])
def test_every_checkpoint_resumes_exactly(cfg, tmp_path, sampler):
    """In an epoch (2, 4, 6, 8), at an epoch's end (10) and later (12)."""
    cfg.train_dataloader.sampler.type = SAMPLERS[sampler]
    whole, expected = run(cfg)
    for iteration in (2, 4, 6, 8, 10, 12):
        resumed, losses = run(
            elsewhere(cfg, tmp_path),
            resume=f'{whole.work_dir}/iter_{iteration}.pth',
        )
        assert losses.values == expected.values[iteration:]
        assert losses.batches == expected.batches[iteration:]
        assert_same_state(resumed, whole)


def test_noise_and_dropout_are_in_the_losses(cfg, tmp_path):
    """So that the test above would see them go wrong."""
    _, expected = run(cfg)
    cfg = elsewhere(cfg, tmp_path)
    cfg.train_dataloader.dataset.noise = 0
    _, without_noise = run(cfg)
    assert without_noise.values[0] != expected.values[0]
    cfg.work_dir = str(tmp_path / 'third')
    cfg.randomness.seed = 4
    assert run(cfg)[1].values[0] != without_noise.values[0]


def test_histories_of_the_log_are_those_of_the_whole_run(cfg, tmp_path):
    class Logs(Hook):
        def before_train_epoch(self, runner):
            runner.message_hub.update_scalar('train/began', runner.epoch)

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


@pytest.mark.parametrize('workers', [0, 2])
def test_what_was_trained_on_is_not_loaded_again(cfg, tmp_path, workers):
    cfg.train_dataloader.update(
        num_workers=workers, persistent_workers=workers > 0
    )
    cfg.train_dataloader.dataset.noise = 0  # workers draw it elsewhere
    whole, expected = run(cfg)
    resumed, losses = run(
        elsewhere(cfg, tmp_path), resume=f'{whole.work_dir}/iter_8.pth'
    )
    assert losses.values == expected.values[8:]
    assert_same_state(resumed, whole)
    if not workers:
        loaded = resumed.train_dataloader.dataset.loaded
        # Batches 4 and 5 of the second epoch, and all of the third.
        assert loaded == whole.train_dataloader.dataset.loaded[2 * 8 :]
        assert len(loaded) == 2 * (2 + 5)


def test_a_loop_of_iterations_resumes_with_the_right_images(cfg, tmp_path):
    """It loads once more what was trained on, and drops it."""
    cfg.train_cfg = dict(type='mmpretrain.ResumableIterLoop', max_iters=13)
    cfg.train_dataloader.sampler.type = SAMPLERS['infinite']
    whole, _ = run(cfg)
    resumed, losses = run(
        elsewhere(cfg, tmp_path), resume=f'{whole.work_dir}/iter_4.pth'
    )
    loaded = whole.train_dataloader.dataset.loaded
    assert len(loaded) == 2 * 13
    assert resumed.train_dataloader.dataset.loaded == loaded
    assert losses.batches == [*range(4, 13)]


class Draws(BaseMetric):
    """A validation that draws from every generator."""

    def process(self, data_batch, data_samples):
        self.results.append(np.random.rand() + torch.rand(()).item())

    def compute_metrics(self, results):
        return dict(mean=sum(results))


class Rises(Draws):
    """A score that draws at random, and is better each time."""

    scores = itertools.count()

    def compute_metrics(self, results):
        super().compute_metrics(results)
        return dict(mean=next(self.scores))


def validate(cfg, metric):
    cfg.val_dataloader = dict(
        batch_size=2,
        num_workers=0,
        persistent_workers=False,
        dataset=dict(type=ToyData),
        sampler=dict(type=SAMPLERS['default'], shuffle=False),
    )
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type=metric)


def test_validation_leaves_the_training_alone(cfg, tmp_path):
    _, expected = run(cfg)
    validate(cfg, Draws)
    _, losses = run(elsewhere(cfg, tmp_path))
    assert losses.values == expected.values


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_best_one_saved_amid_the_validation_resumes_exactly(
    cfg, tmp_path, by_epoch
):
    validate(cfg, Rises)
    cfg.default_hooks.checkpoint.update(
        by_epoch=by_epoch,
        interval=1 if by_epoch else 5,
        save_best='mean',
        rule='greater',
    )
    whole, expected = run(cfg)
    name = 'epoch_1.pth' if by_epoch else 'iter_5.pth'
    resumed, losses = run(
        elsewhere(cfg, tmp_path), resume=tmp_path / 'whole' / name
    )
    assert losses.values == expected.values[5:]
    assert_same_state(resumed, whole)


def test_epochs_of_another_length_are_refused_in_their_middle(cfg, tmp_path):
    run(cfg)
    cfg.train_dataloader.batch_size = 5
    # After an epoch all is well.
    run(elsewhere(cfg, tmp_path), resume=tmp_path / 'whole/iter_10.pth')
    with pytest.raises(ValueError, match='batch 3 of 5 .* has 2 batches now'):
        run(elsewhere(cfg, tmp_path), resume=tmp_path / 'whole/iter_8.pth')


def test_fewer_images_than_a_batch(cfg):
    cfg.train_dataloader.batch_size = 11
    cfg.train_dataloader.drop_last = True
    # On epochs of no iteration mmengine asserts without a word on images.
    cfg.param_scheduler = dict(
        type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True
    )
    message = 'batch_size=11: the data set has only 10 images, not one batch'
    with pytest.raises(ValueError, match=message):
        run(cfg)


class Stream(Hook):
    """What is drawn before each iteration, and which images come."""

    def __init__(self):
        self.drawn, self.images = [], []

    def before_train_iter(self, runner, batch_idx, data_batch):
        values = torch.rand(()).item(), np.random.rand(), random.random()
        self.drawn.append(values)
        self.images.append([round(v[0].item()) for v in data_batch['inputs']])


def test_each_process_has_its_own_random_stream(cfg, tmp_path):
    """And the images in one order, also where the run is resumed."""
    cfg.train_dataloader.dataset.update(length=12, noise=0)
    cfg.train_dataloader.batch_size = 4

    def stream(resume=None):
        found = Stream()
        run(cfg, found, resume=resume)
        return dict(drawn=found.drawn, images=found.images)

    alone = stream()
    cfg.work_dir = str(tmp_path / 'pair')
    cfg.train_dataloader.batch_size = 2
    whole = in_processes(stream, 2, tmp_path)
    images = [part['images'] for part in whole]
    assert [[a, c, b, d] for (a, b), (c, d) in zip(*images, strict=True)] == (
        alone['images']
    )
    assert whole[0]['drawn'][0] == alone['drawn'][0]
    drawn = zip(whole[0]['drawn'], whole[1]['drawn'], strict=True)
    assert all(x != y for a, b in drawn for x, y in zip(a, b, strict=True))
    (tmp_path / 'again').mkdir()
    resumed = in_processes(
        stream, 2, tmp_path / 'again', f'{cfg.work_dir}/iter_4.pth'
    )
    for before, after in zip(whole, resumed, strict=True):
        assert after['drawn'] == before['drawn'][4:]


def test_processes_draw_otherwise_in_a_loop_of_iterations(cfg, tmp_path):
    cfg.train_cfg = dict(type='mmpretrain.ResumableIterLoop', max_iters=3)
    cfg.train_dataloader.sampler.type = SAMPLERS['infinite']
    cfg.train_dataloader.dataset.update(length=12, noise=0)

    def stream():
        found = Stream()
        run(cfg, found)
        return found.drawn

    first, second = in_processes(stream, 2, tmp_path)
    drawn = zip(first, second, strict=True)
    assert all(x != y for a, b in drawn for x, y in zip(a, b, strict=True))
    assert first[0] == stream()[0]


def test_random_states_of_other_processes_are_not_taken(cfg, tmp_path):
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


@pytest.mark.parametrize('name', ['iter_10', 'epoch_2'])
@pytest.mark.parametrize(('batch', 'steps'), [(2, 5), (5, 2)])
def test_another_batch_after_an_epoch_is_told(
    cfg, tmp_path, batch, steps, name
):
    """Ten images; the schedule was made for three epochs of five steps."""
    if name == 'epoch_2':
        cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    whole, _ = run(cfg)
    cfg.train_dataloader.batch_size = batch
    cfg.log_level = 'WARNING'
    resumed, losses = run(
        elsewhere(cfg, tmp_path), resume=f'{whole.work_dir}/{name}.pth'
    )
    assert len(losses.values) == steps
    text = Path(resumed.logger.log_file).read_text()
    message = (
        'An epoch has 2 steps now; it had 5 when the checkpoint was saved. '
        'Its schedules are made for 15 steps in all. The run now ends after '
        '12, before the learning rate is at its end.'
    )
    assert resumed.iter == (12 if batch == 5 else 15)
    assert (message in text) == (batch == 5)
