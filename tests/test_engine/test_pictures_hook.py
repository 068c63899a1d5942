# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.engine.hooks import pictures_hook
from mmscfs.visualization import views

pytestmark = pytest.mark.usefixtures('draws')


class Stub(Hook):
    """Keep what a visualizer is given instead of writing it."""

    def __init__(self):
        self.images = []

    def before_run(self, runner):
        runner.visualizer.add_image = self.add_image

    def add_image(self, name, image, step):
        self.images.append((name, step, image))


def train(cfg, pictures):
    cfg = copy.deepcopy(cfg)
    cfg.default_hooks.pictures = dict(type='PicturesHook', **pictures)
    runner = Runner.from_cfg(cfg)
    kept = Stub()
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
    with pytest.raises(ValueError, match='embedding=True has no val_dataload'):
        train(tiny_run, dict(embedding=True))
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
