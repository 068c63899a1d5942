# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The configs that docs/en/transfer.md prints start from a checkpoint."""

import pytest
import torch
from documents import ROOT, printed_files
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from mmscfs.engine import prepare_config, start_from

FOLDER = 'configs/detection/coco'


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Write the page's configs beside links to those of the project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / 'configs/_base_').symlink_to(ROOT / 'configs/_base_')
    name = 'mask-rcnn_r50-fpn_1x_coco.py'
    (tmp_path / FOLDER / name).symlink_to(ROOT / FOLDER / name)
    files = printed_files('transfer')
    assert len(files) == 2
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    return tmp_path / FOLDER


@pytest.fixture
def checkpoint(tmp_path):
    """A ResNet-50 as a pre-training leaves it, but for the rest."""
    backbone = MODELS.build(dict(type='ResNet', depth=50))
    state = {
        f'teacher.backbone.{key}': value
        for key, value in backbone.state_dict().items()
    }
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=state), path)
    return path


def test_a_detector_of_own_classes_starts_from_it(configs, checkpoint):
    cfg = Config.fromfile(configs / 'mask-rcnn_r50-fpn_1x_mine.py')
    prepare_config(cfg)
    start_from(cfg, str(checkpoint))
    assert cfg.model.backbone.init_cfg.checkpoint == str(checkpoint)
    classes = cfg.train_dataloader.dataset.metainfo.classes
    for head in ('bbox_head', 'mask_head'):
        assert cfg.model.roi_head[head].num_classes == len(classes)


def test_any_detector_is_trained_whole(configs, checkpoint):
    cfg = Config.fromfile(configs / 'retinanet_r50-fpn_1x_coco.py')
    prepare_config(cfg)
    start_from(cfg, str(checkpoint))
    init_default_scope('mmdet')
    model = DETECTORS.build(cfg.model)
    model.init_weights()
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f'teacher.backbone.{key}']), key
    model.train()
    assert all(p.requires_grad for p in model.backbone.parameters())
