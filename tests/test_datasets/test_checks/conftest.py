# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A detector's data sets in COCO's format, and what the checks say."""

import copy
import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmscfs.datasets.checks.detection import check_detection_data

CLASSES = ('cat', 'dog', 'owl')


@pytest.fixture
def write_image():
    def write(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), image)

    return write


@pytest.fixture
def content():
    """Three images of 60x40 with one box each, of one class each."""
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=60, height=40) for i in range(3)
    ]
    box = dict(bbox=[5.0, 6.0, 20.0, 10.5], area=210.0, iscrowd=0)
    annotations = [
        dict(id=i + 1, image_id=i, category_id=10 * i) | copy.deepcopy(box)
        for i in range(3)
    ]
    names = [dict(id=10 * i, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=names)


@pytest.fixture
def coco(tmp_path, content, write_image):
    """Config of a detector on these images, which are written."""
    for i in range(3):
        write_image(tmp_path / 'images' / f'{i}.jpg', i)
    (tmp_path / 'boxes.json').write_text(json.dumps(content, indent=1))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='boxes.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='NoSuchTransform')],
    )
    head = dict(num_classes=3, loss_cls=dict(type='CrossEntropyLoss'))
    heads = dict(
        bbox_head=[copy.deepcopy(head), copy.deepcopy(head)],
        mask_head=dict(num_classes=3),
        semantic_head=dict(num_classes=183),
    )
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(rpn_head=dict(num_classes=1), roi_head=heads),
            train_dataloader=dict(dataset=copy.deepcopy(dataset)),
            val_dataloader=dict(dataset=dict(dataset, test_mode=True)),
        )
    )


@pytest.fixture
def refuse():
    """Return what runs a check, and looks for words in its error."""

    def refuse(cfg, *words, splits=('train', 'val')):
        is_missing = any('not exist' in word for word in words)
        kind = FileNotFoundError if is_missing else ValueError
        with pytest.raises(kind) as caught:
            check_detection_data(cfg, splits)
        for word in words:
            assert word in str(caught.value)
        assert len(str(caught.value)) < 2000

    return refuse
