# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from pathlib import Path

import pytest
from mmengine.config import Config

from mmscfs.engine import settle_views

CONFIGS = Path(__file__).parents[2] / 'configs'
PIPELINE = 'train_dataloader.dataset.pipeline'
CROPS = f'{PIPELINE}.1'
CARDS = 'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-40e_digit-cards.py'


def settled(saved='', path='scfs_r50.py', **options):
    """Return how a config's views are made: of crops and of the loader."""
    cfg = Config.fromfile(CONFIGS / path)
    cfg.merge_from_dict(options)
    settle_views(cfg, saved)
    load, crop, _ = cfg.train_dataloader.dataset.pipeline
    assert cfg.multi_crop == crop
    return crop.filters, crop.color_on_device, load.reduced, cfg


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_a_new_run(device, monkeypatch):
    monkeypatch.setattr(
        'mmscfs.engine.view_settings.get_device', lambda: device
    )
    on_gpu = device == 'cuda'
    assert settled()[:3] == ('antialiased', on_gpu, True)
    # The package's weights are those of the filters that made them.
    assert settled(path=CARDS)[:3] == ('opencv', on_gpu, False)
    dino = CARDS.replace('scfs', 'dino')
    assert settled(path=dino)[:3] == ('opencv', on_gpu, False)
    # What the config says stays.
    windows = {f'{PIPELINE}.0.value_range': (0, 255)}
    assert settled(**windows)[:3] == ('antialiased', on_gpu, False)
    off = {f'{at}.color_on_device': False for at in (CROPS, 'multi_crop')}
    assert settled(**off)[:3] == ('antialiased', False, True)
    # Where nobody would do the colors, they are not left.
    for changes in (
        {f'{PIPELINE}.2.meta_keys': ('img_path',)},
        {'data_preprocessor.type': 'SelfSupDataPreprocessor'},
    ):
        assert settled(**changes)[:3] == ('antialiased', False, True)


def test_a_run_continues_as_it_began(capsys, monkeypatch):
    device = 'cuda'
    monkeypatch.setattr(
        'mmscfs.engine.view_settings.get_device', lambda: device
    )
    *views, begun = settled()
    device = 'cpu'
    assert settled(begun.pretty_text)[:3] == tuple(views)
    assert views[1]  # the colors of its first part were the GPU's
    # From before the settings had names.
    old = Config.fromfile(CONFIGS / 'scfs_r50.py').pretty_text
    for device in ('cpu', 'cuda'):  # noqa: B007, which the patch reads
        assert settled(old)[:3] == ('opencv', False, False)
    # One cannot know of a config that cannot be read.
    assert settled('no Python')[0] == 'antialiased'
    assert capsys.readouterr().err == ''


def test_views_that_change_in_a_run_are_named(capsys):
    old = Config.fromfile(CONFIGS / 'scfs_r50.py').pretty_text
    now = {f'{at}.filters': 'antialiased' for at in (CROPS, 'multi_crop')}
    assert settled(old, **now)[:3] == ('antialiased', False, False)
    (line,) = capsys.readouterr().err.splitlines()
    assert "multi_crop.filters='antialiased' (saved: 'opencv')" in line


def test_configs_without_crops_stay():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[]))))
    before = cfg.to_dict()
    settle_views(cfg)
    assert cfg.to_dict() == before
