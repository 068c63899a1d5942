# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The files that the guides print work as they stand there."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import ROOT, printed_files
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, HOOKS, MODELS, TRANSFORMS

from mmscfs.engine import prepare_config


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """Write every file that the pages print, as a reader would.

    Configs stand in the configs' place, so beside links to those there.
    """
    (tmp_path / 'configs/scfs').mkdir(parents=True)
    for name in ('_base_', 'scfs_r50.py'):
        (tmp_path / 'configs' / name).symlink_to(ROOT / 'configs' / name)
    for guide in ('contributing', 'pretrain'):
        for name, text in printed_files(guide).items():
            (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    registered = {
        registry: dict(registry.module_dict)
        for registry in (MODELS, DATASETS, HOOKS, TRANSFORMS)
    }
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f'{name}.py').is_file():
            del sys.modules[name]
    for registry, modules in registered.items():
        registry.module_dict.clear()
        registry.module_dict.update(modules)


def small_run(path, tiny_run):
    """Return a config of a page in the size of ``tiny_run``."""
    cfg = Config.fromfile(path)
    model = dict(tiny_run.model)
    if 'search' in cfg.model:
        model['search'] = cfg.model.search
    tiny_run.model = model
    dataset = cfg.train_dataloader.dataset
    if dataset.type != 'ImageFiles':
        dataset.pipeline = tiny_run.train_dataloader.dataset.pipeline
        tiny_run.train_dataloader.dataset = dataset
    return tiny_run


def train(cfg):
    """Return the runner of a training of one epoch."""
    cfg.train_cfg.max_epochs = 1
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_search_operator_trains(examples, tiny_run):
    path = examples / 'configs/scfs/scfs_r50_sharp.py'
    runner = train(small_run(path, tiny_run))
    search = runner.model.search
    assert type(search).__name__ == 'SharpFeatureSearch'
    assert search.temperature == 0.05
    assert runner.iter == 4
    hub = runner.message_hub
    assert np.isfinite(hub.get_scalar('train/loss_layer3_search').current())
    entropy = hub.get_scalar('train/layer3_search_entropy').current()
    assert 0 < entropy < np.log(16)  # of 4 x 4 positions at most


def test_data_set_trains(examples, tiny_run, tmp_path):
    folder = tmp_path / 'my/video/frames'
    folder.mkdir(parents=True)
    for i in range(41):
        image = np.full((40, 40, 3), 6 * i, np.uint8)
        assert cv2.imwrite(str(folder / f'{i:04d}.jpg'), image)
    path = examples / 'configs/scfs/scfs_r50_frames.py'
    cfg = small_run(path, tiny_run)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'my/video')
    runner = train(cfg)
    data = runner.train_dataloader.dataset
    names = [Path(data.get_data_info(i)['img_path']).stem for i in range(5)]
    assert names == ['0000', '0010', '0020', '0030', '0040']
    assert runner.iter == 1  # one batch of four of five images


def test_hook_logs(examples, tiny_run):
    import largest_weight_hook  # noqa: F401

    tiny_run.custom_hooks = [dict(type='LargestWeightHook')]
    runner = train(tiny_run)
    logged = runner.message_hub.get_scalar('train/largest_weight').current()
    model = runner.model
    student = [model.backbone, model.neck, model.search_neck]
    largest = max(
        p.detach().abs().max() for part in student for p in part.parameters()
    )
    assert logged == pytest.approx(largest.item())


def test_bands_train(examples, tiny_run, tmp_path):
    folder = tmp_path / 'my/bands'
    folder.mkdir(parents=True)
    generator = np.random.default_rng(2)
    for i in range(4):
        bands = generator.integers(0, 4000, (70, 90, 5))
        np.save(folder / f'{i}.npy', bands.astype(np.uint16))
    cfg = Config.fromfile(examples / 'configs/scfs/scfs_r50_bands.py')
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(folder)
    dataset.pipeline[1].update(global_size=32, local_size=32, num_local=2)
    tiny_run.train_dataloader.dataset = dataset
    tiny_run.data_preprocessor = cfg.data_preprocessor
    tiny_run.model['backbone']['in_channels'] = cfg.model.backbone.in_channels
    runner = train(tiny_run)
    views = runner.train_dataloader.dataset[0]['inputs']
    assert [tuple(view.shape) for view in views] == [(5, 32, 32)] * 4
    assert runner.iter == 1
