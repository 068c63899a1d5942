# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import random
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.engine.hooks import PicturesHook, pictures_hook
from mmscfs.visualization import views

LOOK = PicturesHook.look  # which draws nothing elsewhere, see conftest.py


@pytest.fixture(autouse=True)
def _draws(monkeypatch):
    monkeypatch.setattr(PicturesHook, 'look', LOOK)


class Stub(Hook):
    """Keep what a visualizer is given instead of writing it."""

    def __init__(self):
        self.images = []

    def before_run(self, runner):
        runner.visualizer.add_image = self.add_image

    def add_image(self, name, image, step):
        self.images.append((name, step, image))


def train(cfg, pictures, stub=True, **changes):
    cfg = copy.deepcopy(cfg)
    cfg.default_hooks.pop('pictures', None)
    if pictures is not None:
        cfg.default_hooks.pictures = dict(type='PicturesHook', **pictures)
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    kept = Stub()
    if stub:
        runner.register_hook(kept, priority='HIGHEST')
    runner.train()
    return runner, kept.images


@pytest.fixture
def blank(monkeypatch):
    """Pictures that take no time to draw."""
    for name in ('draw_views', 'draw_search_maps', 'draw_embedding'):
        monkeypatch.setattr(
            f'mmscfs.engine.hooks.pictures_hook.{name}',
            lambda *_: np.zeros((2, 2, 3), np.uint8),
        )


def states(runner):
    """Everything that a training changes, random states included."""
    values = dict(runner.model.state_dict())
    for i, part in runner.optim_wrapper.optimizer.state_dict()[
        'state'
    ].items():
        values |= {f'optimizer.{i}.{k}': v for k, v in part.items()}
    values['torch'] = torch.get_rng_state()
    values['numpy'] = torch.from_numpy(np.random.get_state()[1].astype(int))
    values['python'] = torch.tensor(random.getstate()[1])
    return values


def test_training_is_the_same_to_the_bit(tiny_run, tmp_path):
    expected = states(train(tiny_run, None)[0])
    runner, images = train(
        tiny_run, dict(interval=1), work_dir=str(tmp_path / 'pictures')
    )
    assert len(images) == 6
    found = states(runner)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_local_backend_keeps_the_pictures(tiny_run):
    runner, _ = train(tiny_run, {}, stub=False)
    folder = Path(runner.log_dir, 'vis_data', 'vis_image')
    # Before the run, after the first epoch and after the last, of 4 batches.
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f'{name}_{step}.png'
        for name in ('views', 'search_maps')
        for step in (0, 4, 8)
    )
    first, last = (
        cv2.imread(str(folder / f'search_maps_{step}.png')) for step in (0, 8)
    )
    assert first.shape == last.shape
    assert not np.array_equal(first, last)


@pytest.mark.usefixtures('blank')
def test_dino_has_views_alone_by_epochs(tiny_run, dino_cfg):
    tiny_run.model = dino_cfg
    tiny_run.train_cfg.max_epochs = 5
    _, images = train(tiny_run, dict(interval=3))
    assert {name for name, _, _ in images} == {'views'}
    assert [step for _, step, _ in images] == [0, 4, 12, 20]


@pytest.mark.usefixtures('blank')
def test_runs_by_iteration(tiny_run, monkeypatch):
    monkeypatch.setattr('mmscfs.engine.hooks.recurring_hook.EARLY', 2)
    hooks = tiny_run.default_hooks
    for name in ('teacher_temp', 'frozen_prototypes'):
        del hooks[name]  # they count epochs
    tiny_run.train_cfg = dict(type='IterBasedTrainLoop', max_iters=7)
    _, images = train(tiny_run, dict(iter_interval=5))
    steps = [step for name, step, _ in images if name == 'search_maps']
    assert steps == [0, 2, 5, 7]


def test_the_views_are_those_of_the_coming_epoch(tiny_run, monkeypatch):
    """The crops drawn are the ones that the loader then yields."""
    seen = {}

    class Keep(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch, outputs):
            for i, sample in enumerate(data_batch['data_samples']):
                image = data_batch['inputs'][2][i]  # the first local view
                seen[runner.epoch, sample.img_path] = image

    drawn, words = [], []
    monkeypatch.setattr(
        'mmscfs.engine.hooks.pictures_hook.draw_views',
        lambda samples, _, text: (
            drawn.append(samples)
            or words.append(text)
            or np.zeros((2, 2, 3), 'u1')
        ),
    )
    tiny_run.custom_hooks = [Keep()]
    train(tiny_run, dict(interval=1, num_images=2))
    assert [len(samples) for samples in drawn] == [2, 2, 2]
    # After the second and last epoch none is to come.
    found = [re.search(r'in epoch (\d+)', text)[1] for text in words]
    assert found == ['1', '2', '2']
    folder = tiny_run.train_dataloader.dataset.data_root
    for picture, epoch in enumerate((0, 1, 1)):
        for sample in drawn[picture]:
            path = str(Path(folder, 'train', sample.name))
            view = seen[epoch, path].flip(0).permute(1, 2, 0).numpy()
            assert np.array_equal(sample.views[2].image, view)


def test_a_picture_that_fails_warns_once(tiny_run, monkeypatch, blank):
    """An image that is gone costs its picture, not the training."""

    def gone(*_):
        raise UnreadableImageError('00.jpg')

    class Remove(Hook):
        def after_train_epoch(self, runner):
            for module in (pictures_hook, views):
                monkeypatch.setattr(module, 'load_readable', gone)

    tiny_run.default_hooks.pictures = dict(type='PicturesHook', interval=1)
    tiny_run.custom_hooks = [dict(type=Remove)]
    runner = Runner.from_cfg(tiny_run)
    messages = []
    runner.logger.warning = messages.append
    runner.train()
    assert runner.iter == 8
    found = [text for text in messages if text.startswith('No picture')]
    assert len(found) == 2  # of three failures
    assert "No picture 'views' at iteration 4" in found[0]
    assert '00.jpg' in found[0]
    assert "No picture 'search_maps'" in found[1]


def test_embedding_of_validation_images(tiny_run, image_folder):
    resize = dict(type='Resize', scale=(32, 32))
    tiny_run.train_cfg.max_epochs = 1
    tiny_run.val_dataloader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CustomDataset',
            data_root=str(image_folder),
            data_prefix='train',
            pipeline=[dict(type='LoadImage'), resize, dict(type='PackInputs')],
        ),
    )
    tiny_run.val_evaluator = []
    tiny_run.val_cfg = dict(
        type='KNNLoop', ks=[1], bank_dataloader=tiny_run.val_dataloader
    )
    _, images = train(tiny_run, dict(embedding=True))
    (begin, first), (end, last) = (
        (step, image) for name, step, image in images if name == 'embedding'
    )
    assert (begin, end) == (0, 4)
    assert not np.array_equal(first, last)


def test_embedding_needs_validation_images(tiny_run):
    with pytest.raises(ValueError, match='embedding=True has no val_dataload'):
        train(tiny_run, dict(embedding=True))


@pytest.mark.parametrize('name', ['interval', 'iter_interval', 'num_images'])
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f'{name}=0 must be a whole number'):
        PicturesHook(**{name: 0})
