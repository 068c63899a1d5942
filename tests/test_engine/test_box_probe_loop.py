# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of the box probe as a loop, on stripes of color."""

import json

import cv2
import numpy as np
import pytest
import torch
from detection_data import make_voc
from mmengine.config import Config
from mmengine.runner import Runner
from toy_runs import in_processes

from mmscfs.engine.loops import BoxProbe

COLORS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)
CLASSES = ('red', 'green', 'blue')
SIZES = ((64, 160), (96, 128))  # height, width
FIGURES = {'top1', 'object_top1', 'mIoU'}


class Pooled(torch.nn.Module):
    """A backbone whose maps are the image in patches of 8 and 16 px."""

    out_indices = (0, 1)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        return tuple(
            self.scale * torch.nn.functional.avg_pool2d(images, side)
            for side in (8, 16)
        )


class Vectors(Pooled):
    """A backbone whose outputs are not maps."""

    def forward(self, images):
        return images[:, :, 0, 0], images[:, :, 0, 0]


def make_stripes(root, split, count):
    """Write images of two stripes of color on gray, with COCO annotations."""
    coco = dict(images=[], annotations=[], categories=[])
    coco['categories'] = [
        dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)
    ]
    (root / split).mkdir(parents=True)
    for i in range(count):
        height, width = SIZES[i % 2]
        image = np.full((height, width, 3), 90, np.uint8)
        for number, left in enumerate((16, width // 2 + 16)):
            label = (i + number) % 3
            image[:, left : left + 16] = COLORS[label]
            ring = [left, 0, left + 16, 0, left + 16, height, left, height]
            ids = dict(id=2 * i + number + 1, image_id=i, iscrowd=0)
            box = dict(bbox=[left, 0, 16, height], area=16 * height)
            coco['annotations'].append(
                dict(category_id=label + 1, segmentation=[ring], **ids, **box)
            )
        name = f'{split}_{i}.png'
        assert cv2.imwrite(str(root / split / name), image)
        coco['images'].append(
            dict(id=i, file_name=name, width=width, height=height)
        )
    (root / f'{split}.json').write_text(json.dumps(coco))


def loader(root, split):
    """A loader of stripes, by a pipeline as mmdet has it for tests."""
    dataset = dict(
        type='mmdet.CocoDataset',
        data_root=f'{root}/',
        ann_file=f'{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type='LoadImage'),
            # Twice as large: boxes and masks have to follow.
            dict(type='mmdet.Resize', scale_factor=2.0),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs'),
        ],
    )
    return dict(batch_size=3, num_workers=0, dataset=dataset)


@pytest.fixture
def stripes(tmp_path):
    """Annotated stripes to learn from and to judge."""
    for split, count in (('train', 8), ('val', 5)):
        make_stripes(tmp_path / 'stripes', split, count)
    return tmp_path / 'stripes'


@pytest.fixture
def cfg(stripes, tmp_path):
    """A test of maps that are the image."""
    return Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'work'),
            model=dict(type='ImageClassifier', backbone=dict(type=Pooled)),
            data_preprocessor=dict(
                mean=[60.0] * 3, std=[60.0] * 3, to_rgb=True
            ),
            randomness=dict(seed=0),
            log_level='WARNING',
            test_dataloader=loader(stripes, 'val'),
            test_evaluator=[],
            test_cfg=dict(
                type='BoxProbeLoop',
                bank_dataloader=loader(stripes, 'train'),
                k=3,
                segmentation=True,
            ),
        )
    )


def measure(cfg):
    return Runner.from_cfg(cfg).test()


def test_what_maps_show_is_found_whole(cfg):
    metrics = measure(cfg)
    prefixes = ('', 'layer1_', 'layer2_')
    assert set(metrics) == {f'boxes/{p}{f}' for p in prefixes for f in FIGURES}
    for prefix in prefixes:
        assert metrics[f'boxes/{prefix}top1'] == 100
        assert metrics[f'boxes/{prefix}mIoU'] == 100
        assert 80 < metrics[f'boxes/{prefix}object_top1'] <= 100


def test_one_class_has_no_accuracy_of_classes(cfg):
    for part in (cfg.test_dataloader, cfg.test_cfg.bank_dataloader):
        part.dataset.metainfo = dict(classes=CLASSES[:1])
    cfg.test_cfg.layers = ['layer1']
    metrics = measure(cfg)
    assert set(metrics) == {'boxes/object_top1', 'boxes/mIoU'}
    assert metrics['boxes/mIoU'] == 100


def test_two_processes_find_what_one_finds(cfg, tmp_path):
    expected = measure(cfg)
    found = in_processes(lambda: measure(cfg), 2, tmp_path)
    assert found == [expected, expected]


def test_boxes_of_voc(cfg, tmp_path):
    for split in ('trainval', 'test'):
        make_voc(tmp_path / 'VOC2007', split, CLASSES, count=4)
    for part, split in (
        (cfg.test_dataloader, 'test'),
        (cfg.test_cfg.bank_dataloader, 'trainval'),
    ):
        leaf = dict(
            type='mmdet.VOCDataset',
            data_root=f'{tmp_path}/',
            ann_file=f'VOC2007/ImageSets/Main/{split}.txt',
            data_prefix=dict(sub_data_root='VOC2007/'),
            metainfo=dict(classes=CLASSES),
            # Which mmdet accepts in trainings alone.
            filter_cfg=dict(filter_empty_gt=True, bbox_min_size=32),
            pipeline=part.dataset.pipeline,
        )
        whole = dict(type='ConcatDataset', datasets=[leaf])
        part.dataset = dict(type='RepeatDataset', times=3, dataset=whole)
    with pytest.raises(ValueError, match='needs masks, which objects of the'):
        measure(cfg)
    cfg.test_cfg.segmentation = False
    loop = Runner.from_cfg(cfg).test_loop
    assert (loop.probe.queries.boxes, loop.probe.bank.boxes) == (8, 8)
    metrics = measure(cfg)
    assert 'boxes/mIoU' not in metrics
    assert 0 <= metrics['boxes/top1'] <= 100


def test_modes_and_random_states_stay(tiny_run, stripes):
    model = Runner.from_cfg(tiny_run).model.train()
    model.teacher.backbone.layer1.eval()
    for parameter in model.backbone.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    modes = [part.training for part in model.modules()]
    random = torch.get_rng_state()
    data = loader(stripes, 'val'), loader(stripes, 'train')
    default, teacher, student = (
        BoxProbe(model, *data, network=network, k=3)
        for network in (None, 'teacher', 'student')
    )
    assert default.measure() == teacher.measure() != student.measure()
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def drop_masks(coco):
    for item in coco['annotations']:
        del item['segmentation']


def drop_boxes(coco):
    coco['annotations'].clear()


@pytest.mark.parametrize(
    ('split', 'change', 'message'),
    [
        ('val', drop_boxes, 'images of the queries have no box of the class'),
        ('train', drop_masks, 'needs masks, which objects of the bank lack'),
    ],
)
def test_annotations_that_do_not_do_are_refused(
    cfg, stripes, split, change, message
):
    path = stripes / f'{split}.json'
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))
    with pytest.raises(ValueError, match=message):
        _ = Runner.from_cfg(cfg).test_loop


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'test_cfg.k': 17}, 'k=17 must be at least 1 and at most the 16 box'),
        ({'test_cfg.num_images': 0}, '0 images of the queries have no box'),
        (
            {'test_dataloader.dataset.metainfo.classes': CLASSES[::-1]},
            "the bank has the classes 'red', 'green', 'blue', the queries",
        ),
        (
            {'test_dataloader.dataset.ann_file': 'train.json'}
            | {'test_dataloader.dataset.data_prefix.img': 'train/'},
            '8 images are in the bank and among the queries',
        ),
        ({'model.backbone.type': Vectors}, 'layer1 of Vectors is not a map'),
        ({'data_preprocessor.std': [0.0] * 3}, 'a feature is not finite'),
    ],
)
def test_bad_settings_are_refused(cfg, change, message):
    cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        measure(cfg)


def test_images_without_boxes_are_refused(cfg, tmp_path):
    folder = tmp_path / 'plain' / 'class'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / '0.png'), np.zeros((8, 8, 3), np.uint8))
    cfg.test_dataloader.dataset = dict(
        type='CustomDataset',
        data_root=str(folder.parent),
        pipeline=[dict(type='LoadImage')],
    )
    with pytest.raises(ValueError, match='of the queries has no boxes'):
        measure(cfg)
