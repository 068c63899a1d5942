# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Resuming at any iteration gives the run that never stopped."""

import copy
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


@pytest.fixture(scope='module', params=['default', 'keyed'])
def whole(request, tmp_path_factory):
    """A run that never stopped: its config, the runner and the losses."""
    cfg = toy_cfg(tmp_path_factory.mktemp('whole'))
    cfg.train_dataloader.sampler.type = SAMPLERS[request.param]
    return cfg, *run(cfg)


@pytest.mark.parametrize('iteration', [2, 8, 10, 12])
def test_every_checkpoint_resumes_exactly(whole, tmp_path, iteration):
    """In an epoch (2, 8), at an epoch's end (10) and later (12)."""
    cfg, runner, expected = whole
    resumed, losses = run(
        elsewhere(copy.deepcopy(cfg), tmp_path),
        resume=f'{cfg.work_dir}/iter_{iteration}.pth',
    )
    assert losses.values == expected.values[iteration:]
    assert losses.batches == expected.batches[iteration:]
    assert_same_state(resumed, runner)


def test_noise_and_dropout_are_in_the_losses(whole, tmp_path):
    """So that the test above would see them go wrong."""
    cfg, _, expected = whole
    cfg = elsewhere(copy.deepcopy(cfg), tmp_path)
    cfg.train_dataloader.dataset.noise = 0
    _, without_noise = run(cfg)
    assert without_noise.values[0] != expected.values[0]
    cfg.work_dir = str(tmp_path / 'third')
    cfg.randomness.seed = 4
    assert run(cfg)[1].values[0] != without_noise.values[0]


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


def test_epochs_of_another_length(cfg, tmp_path):
    """Ten images; the schedule was made for three epochs of five steps."""
    run(cfg)
    cfg.train_dataloader.batch_size = 5
    with pytest.raises(ValueError, match='batch 3 of 5 .* has 2 batches now'):
        run(elsewhere(cfg, tmp_path), resume=tmp_path / 'whole/iter_8.pth')
    # After an epoch all is well, but for the schedule; and the random states
    # of two processes are not those of one.
    path = tmp_path / 'whole/iter_10.pth'
    checkpoint = read_checkpoint(path)
    info = checkpoint['message_hub']['runtime_info']
    assert len(info['random_states']) == 1
    info['random_states'] *= 2
    torch.save(checkpoint, path)
    cfg.log_level = 'WARNING'
    resumed, losses = run(elsewhere(cfg, tmp_path), resume=path)
    assert (len(losses.values), resumed.iter) == (2, 12)
    text = Path(resumed.logger.log_file).read_text()
    assert (
        'An epoch has 2 steps now; it had 5 when the checkpoint was saved. '
        'The schedules are made for 15 steps in all, and the run now ends '
        'after 12.'
    ) in text
    assert 'Saved with 2 processes, running with 1' in text


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
