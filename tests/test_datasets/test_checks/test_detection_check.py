# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which data sets of a detector are checked, and its heads."""

import copy
import importlib
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import mmscfs.datasets.checks
from mmscfs.datasets.checks.detection import check_detection_data


def test_good_data(coco, log):
    before = coco.pretty_text
    check_detection_data(coco)
    assert coco.pretty_text == before
    assert not log.messages


def test_some_classes_of_the_file_are_enough(coco, log):
    for split in ('train', 'val'):
        loader = coco[f'{split}_dataloader']
        loader.dataset.metainfo.classes = ('cat', 'owl')
    heads = coco.model.roi_head
    for head in (*heads.bbox_head, heads.mask_head):
        head.num_classes = 2
    check_detection_data(coco)
    assert "objects called 'dog' are left out" in log.messages[0]


# What is not ours to check


def test_pretraining_needs_no_mmdet(monkeypatch):
    """Neither importing the check nor checking a pre-training config."""
    monkeypatch.setattr(mmscfs.datasets, 'checks', mmscfs.datasets.checks)
    for name in [*sys.modules]:
        if name.startswith('mmscfs.datasets.checks'):
            monkeypatch.delitem(sys.modules, name)
    for name in ('mmdet', 'pycocotools'):
        monkeypatch.setitem(sys.modules, name, None)
    checks = importlib.import_module('mmscfs.datasets.checks')
    root = Path(__file__).parents[3]
    cfg = Config.fromfile(root / 'configs/scfs_r50.py')
    checks.check_detection_data(cfg)


@pytest.mark.parametrize(
    'settings',
    [
        dict(type='LVISDataset'),
        dict(type='NoSuchDataset'),
        dict(backend_args=dict(backend='petrel')),
        dict(data_root='', ann_file='s3://bucket/boxes.json'),
    ],
    ids=str,
)
def test_other_data_sets_and_files_are_left_alone(coco, settings):
    coco.train_dataloader.dataset.update(dict(ann_file='absent'), **settings)
    check_detection_data(coco)


def test_only_the_named_splits(coco, refuse):
    coco.test_dataloader = copy.deepcopy(coco.val_dataloader)
    coco.test_dataloader.dataset.ann_file = 'absent.json'
    check_detection_data(coco)
    setting = 'test_dataloader.dataset.ann_file'
    refuse(coco, setting, 'not exist', splits=['test'])


# Settings

TRAIN = 'train_dataloader.dataset'
HEADS = 'model.roi_head'


@pytest.mark.parametrize(
    ('setting', 'value', 'words'),
    [
        (f'{TRAIN}.ann_file', 'a.json', ["a.json'", 'not exist']),
        (f'{TRAIN}.ann_file', ['a.json', 'b.json'], ['ConcatDataset']),
        (f'{TRAIN}.data_prefix.img', 'pictures', ["pictures'", 'not exist']),
        (
            f'{TRAIN}.data_prefix',
            dict(img_path='images', _delete_=True),
            ["e.g. dict(img='train2017/')"],
        ),
        (f'{TRAIN}.metainfo.classes', 'cat', ["classes='cat'", 'comma']),
        *(
            (
                f'{HEADS}.{head}.num_classes',
                80,
                [f'set {HEADS}.{shown}.num_classes=3', f'{TRAIN} has 3 class'],
            )
            for head, shown in (
                ('bbox_head.1', 'bbox_head[1]'),
                ('mask_head', 'mask_head'),
            )
        ),
    ],
)
def test_bad_settings(coco, setting, value, words, refuse):
    coco.merge_from_dict({setting: value})
    name = setting.replace('.1.', '[1].').removesuffix('.classes')
    refuse(coco, name, *words)
