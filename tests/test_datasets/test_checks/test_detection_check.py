# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
from bad_annotations import COCO, VOC
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask

from mmscfs.datasets.checks.detection import check_detection_data
from mmscfs.datasets.checks.masks import mask_problem, packed_total

CLASSES = ('cat', 'dog', 'owl')
VOC_XML = (
    '<annotation><filename>{name}.jpg</filename><size><width>60</width>'
    '<height>40</height><depth>3</depth></size><object><name>{kind}</name>'
    '<bndbox><xmin>{x1}</xmin><ymin>2</ymin><xmax>{x2}</xmax>'
    '<ymax>30</ymax></bndbox></object></annotation>'
)


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), image)


def coco_content(count=3):
    """Images of 60x40 with one box each, of one class each."""
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=60, height=40)
            for i in range(count)
        ],
        annotations=[
            dict(
                id=i + 1,
                image_id=i,
                category_id=10 * (i % 3),
                bbox=[5.0, 6.0, 20.0, 10.5],
                area=210.0,
                iscrowd=0,
            )
            for i in range(count)
        ],
        categories=[
            dict(id=10 * i, name=name) for i, name in enumerate(CLASSES)
        ],
    )


@pytest.fixture
def coco(tmp_path):
    """Write a COCO data set; change(content) may spoil it first."""

    def make(change=lambda content: None):
        content = coco_content()
        for i in range(3):
            write_image(tmp_path / 'images' / f'{i}.jpg', i)
        change(content)
        (tmp_path / 'boxes.json').write_text(json.dumps(content, indent=1))
        return coco_config(tmp_path)

    return make


def coco_config(root, **settings):
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='boxes.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='NoSuchTransform')],
    )
    dataset.update(settings)
    head = dict(num_classes=3, loss_cls=dict(type='CrossEntropyLoss'))
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(
                rpn_head=dict(num_classes=1),
                roi_head=dict(
                    bbox_head=[copy.deepcopy(head), copy.deepcopy(head)],
                    mask_head=dict(num_classes=3),
                    semantic_head=dict(num_classes=183),
                ),
            ),
            train_dataloader=dict(dataset=copy.deepcopy(dataset)),
            val_dataloader=dict(dataset=dict(dataset, test_mode=True)),
        )
    )


def write_voc(root, **changes):
    """Two images of VOC; changes = dict(name=(kind, xmin, xmax))."""
    objects = {'a1': ('cat', 1, 20), 'b2': ('dog', 5, 60)} | changes
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / 'VOC2007' / folder).mkdir(parents=True)
    for seed, (name, (kind, x1, x2)) in enumerate(objects.items()):
        write_image(root / 'VOC2007/JPEGImages' / f'{name}.jpg', seed)
        (root / 'VOC2007/Annotations' / f'{name}.xml').write_text(
            VOC_XML.format(name=name, kind=kind, x1=x1, x2=x2)
        )
    listing = root / 'VOC2007/ImageSets/Main/trainval.txt'
    listing.write_text(''.join(f'{name}\n' for name in objects))
    return listing


def voc_config(root):
    """The stock layout: the data set repeated, and concatenated."""
    dataset = dict(
        type='VOCDataset',
        data_root=str(root),
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=dict(classes=CLASSES),
    )
    repeated = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[dataset]),
    )
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(bbox_head=dict(num_classes=3)),
            train_dataloader=dict(dataset=repeated),
        )
    )


def refusal(cfg, kind=ValueError, **kwargs):
    with pytest.raises(kind) as caught:
        check_detection_data(cfg, **kwargs)
    return str(caught.value)


@pytest.fixture
def warnings():
    logger = MMLogger.get_current_instance()
    texts = []

    class Keep(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())

    handler = Keep()
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


# Good data


def test_good_coco(coco, warnings):
    cfg = coco()
    before = cfg.pretty_text
    check_detection_data(cfg)
    assert cfg.pretty_text == before
    assert not warnings


def test_good_voc(tmp_path, warnings):
    write_voc(tmp_path)
    check_detection_data(voc_config(tmp_path))
    assert not warnings


def test_some_classes_of_the_file_are_enough(coco):
    cfg = coco()
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset.metainfo.classes = ('cat', 'owl')
    for head in cfg.model.roi_head.bbox_head:
        head.num_classes = 2
    cfg.model.roi_head.mask_head.num_classes = 2
    check_detection_data(cfg)


@pytest.mark.parametrize(
    'config', ['coco_instance', 'voc0712', 'coco_detection']
)
def test_stock_paths_are_mmdets(config, tmp_path, monkeypatch):
    """What is checked is what mmdet itself would read."""
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    stock = Path(mmdet.__file__).parent / '.mim/configs/_base_/datasets'
    cfg = Config.fromfile(stock / f'{config}.py')
    cfg.default_scope = 'mmdet'
    seen = []
    for check in ('check_coco', 'check_voc'):
        monkeypatch.setattr(
            f'mmscfs.datasets.checks.detection.{check}',
            lambda dataset, where, steps: seen.append((dataset, where)),
        )
    check_detection_data(cfg, ('train', 'val', 'test'))
    assert len(seen) == (4 if 'voc' in config else 3)
    for dataset, where in seen:
        settings = cfg
        for key in where.replace('[', '.').replace(']', '').split('.'):
            settings = settings[int(key) if key.isdigit() else key]
        built = DATASETS.build(dict(settings, lazy_init=True))
        assert type(dataset) is type(built)
        assert dataset.ann_file == built.ann_file
        assert dataset.ann_file.startswith(settings.data_root)
        assert dataset.data_prefix == built.data_prefix
        assert dataset.metainfo == built.metainfo


# What is not ours to check


def test_pretraining_needs_no_mmdet():
    """Neither importing the check nor checking a pre-training config."""
    code = (
        'import sys\n'
        'sys.modules |= dict(mmdet=None, pycocotools=None)\n'
        'from mmengine.config import Config\n'
        'from mmscfs.datasets.checks import check_detection_data\n'
        'check_detection_data(Config.fromfile("configs/scfs_r50.py"))'
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, '-c', code], cwd=root, check=True)


@pytest.mark.parametrize('kind', ['LVISDataset', 'NoSuchDataset'])
def test_other_data_sets_are_left_alone(kind, tmp_path):
    cfg = coco_config(tmp_path, type=kind)
    check_detection_data(cfg)


def test_files_that_are_not_on_disk_are_left_alone(tmp_path):
    backend_args = dict(backend='petrel')
    check_detection_data(coco_config(tmp_path, backend_args=backend_args))
    cfg = coco_config('', ann_file='s3://bucket/boxes.json')
    check_detection_data(cfg)


def test_only_the_named_splits(coco):
    cfg = coco()
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_dataloader.dataset.ann_file = 'absent.json'
    check_detection_data(cfg)
    text = refusal(cfg, FileNotFoundError, splits=['test'])
    assert 'test_dataloader.dataset.ann_file' in text


# COCO's format


def test_missing_annotations(coco, tmp_path):
    cfg = coco()
    cfg.val_dataloader.dataset.ann_file = 'none.json'
    text = refusal(cfg, FileNotFoundError)
    assert 'val_dataloader.dataset.ann_file' in text
    assert str(tmp_path / 'none.json') in text


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        (dict(image_id=99), '3 with an image_id that the file lacks'),
        (dict(category_id=99), '3 with a category_id that the file lacks'),
        (dict(area=0), '3 with area <= 0'),
        (dict(iscrowd=1), '3 with iscrowd=1'),
        (dict(ignore=1), '3 with ignore=1'),
        (dict(bbox=[0.1, 0.1, 0.5, 0.2]), 'fractions of the image'),
        (dict(bbox=[5, 6, 0, 4]), '3 with a box below 1 px'),
    ],
)
def test_nothing_to_learn(coco, values, reason):
    """As mmdet itself finds."""

    def spoil(content):
        for item in content['annotations']:
            item.update(values)

    cfg = coco(spoil)
    text = refusal(cfg)
    assert 'nothing to learn' in text
    assert reason in text
    assert not any(
        instance['ignore_flag'] == 0
        for image in mmdets(cfg).load_data_list()
        for instance in image['instances']
    )


def mmdets(cfg):
    settings = dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True)
    del settings['type']
    return CocoDataset(**settings)


@pytest.mark.parametrize('missing', [None, []])
def test_masks_that_the_pipeline_loads(coco, missing):
    def add(content):
        for item in content['annotations']:
            item['segmentation'] = [[5, 6, 25, 6, 25, 16]]
        content['annotations'][1]['segmentation'] = missing

    cfg = coco(add)
    check_detection_data(cfg)
    steps = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    cfg.train_dataloader.dataset.pipeline = steps
    text = refusal(cfg)
    assert '1 of 3 annotations have no segmentation' in text
    assert 'annotation 2' in text
    assert 'with_mask=False' in text


def shrink(path):
    image = Image.open(path)
    image.resize((30, 20)).save(path)


def turn(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize(
    ('change', 'words'),
    [(shrink, 'is 30x20 px'), (turn, 'is 40x60 px, its annotation')],
)
def test_images_of_another_size(coco, tmp_path, change, words, warnings):
    cfg = coco()
    change(tmp_path / 'images/1.jpg')
    check_detection_data(cfg, ['train'])
    assert '1 of 3 images opened differ in size' in warnings[0]
    change(tmp_path / 'images/2.jpg')
    text = refusal(cfg)
    assert f"images/1.jpg' {words}" in text
    assert 'says 60x40' in text
    assert ('EXIF orientation turns it' in text) == (change is turn)
    if change is turn:  # a run that does not turn them, either
        steps = [dict(type='X', color_type='color_ignore_orientation')]
        cfg.train_dataloader.dataset.pipeline = steps
        check_detection_data(cfg, ['train'])


def test_missing_image_folder(coco):
    cfg = coco()
    cfg.train_dataloader.dataset.data_prefix = dict(img='pictures')
    text = refusal(cfg, FileNotFoundError)
    assert 'train_dataloader.dataset.data_prefix.img' in text
    assert 'pictures' in text


def test_data_prefix_of_another_name(coco):
    cfg = coco()
    cfg.train_dataloader.dataset.data_prefix = dict(img_path='images')
    assert 'data_prefix' in refusal(cfg)


def test_missing_images(coco, tmp_path):
    cfg = coco()
    (tmp_path / 'images/2.jpg').unlink()
    text = refusal(cfg, FileNotFoundError)
    assert '1 of 3 images' in text
    assert str(tmp_path / 'images/2.jpg') in text


def test_file_that_is_no_image(coco, tmp_path):
    cfg = coco()
    (tmp_path / 'images/1.jpg').write_text('404 not found')
    text = refusal(cfg)
    assert '1.jpg' in text
    assert 'no image' in text


def test_categories_of_another_name(coco):
    def rename(content):
        content['categories'][2]['name'] = 'eagle'

    text = refusal(coco(rename))
    assert "missing 'owl'; found 'cat', 'dog', 'eagle'" in text
    assert 'train_dataloader.dataset.metainfo=dict(classes=...)' in text


def test_default_classes_are_cocos(coco):
    """As when a user forgets metainfo."""
    cfg = coco()
    del cfg.train_dataloader.dataset['metainfo']
    for head in (*cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 80
    text = refusal(cfg)
    # COCO has cats and dogs, but no owls.
    assert '78 of 80 classes' in text
    assert "found 'cat', 'dog', 'owl'" in text


def test_order_of_categories_is_the_files(coco, warnings):
    check_detection_data(coco(lambda c: c['categories'].reverse()))
    assert "classes=('owl', 'dog', 'cat')" in warnings[0]


def test_corners_instead_of_sizes_are_warned_of(coco, warnings):
    def spoil(content):
        content['annotations'][0]['bbox'] = [30, 20, 55, 38]

    check_detection_data(coco(spoil))
    assert '1 of 3 boxes reach beyond their image' in warnings[0]
    assert '0.jpg' in warnings[0]


@pytest.mark.parametrize('case', COCO, ids=lambda case: case.name)
def test_bad_coco_files(coco, tmp_path, case, warnings):
    """Refused with the file and the item, or left out by mmdet."""
    cfg = coco()
    path = tmp_path / 'boxes.json'
    path.write_text(case.make(coco_content()))
    if not case.words:
        check_detection_data(cfg)
        boxes = [
            sum(not i['ignore_flag'] for i in image['instances'])
            for image in mmdets(cfg).load_data_list()
        ]
        words = ('unknown', 'area', 'crowd')
        is_left_out = any(word in case.name for word in words)
        assert boxes == [1, 0 if is_left_out else 1, 1]
        assert len(warnings) == 2 * ('unknown' in case.name)  # train and val
        return
    missing = 'do not exist' in case.words
    text = refusal(cfg, FileNotFoundError if missing else ValueError)
    for words in (*case.words, '' if missing else str(path)):
        assert words in text
    assert len(text) < 2000


def test_packed_masks():
    """Those of pycocotools fill their image; a pixel more or less does not.

    It shows unset memory, or loops for ever, where they do not.
    """
    rng = np.random.default_rng(0)
    for fraction in (0, 0.01, 0.1, 0.5, 1):
        for _ in range(10):
            height, width = map(int, rng.integers(1, 90, 2))
            image = dict(height=height, width=width)
            drawn = rng.random((height, width)) < fraction
            packed = coco_mask.encode(np.asfortranarray(drawn, np.uint8))
            packed['counts'] = packed['counts'].decode()
            assert mask_problem(packed, image) is None
            assert packed_total(packed['counts']) == height * width
    for runs in (
        [2**28, 2**28],
        [1, 5, 9, 2**28, 0, 0],
        [2, 3, 0, 1, 4],
        [7, 0],
    ):
        row = dict(size=[1, sum(runs)], counts=runs)
        packed = coco_mask.frPyObjects(row, *row['size'])['counts'].decode()
        assert packed_total(packed) == sum(runs)
        image = dict(height=1, width=sum(runs) + 1)
        problem = mask_problem(
            dict(size=[1, sum(runs) + 1], counts=packed), image
        )
        assert f'{sum(runs)} pixels in all' in problem


def test_image_names_are_no_addresses_without_a_folder_either(coco, tmp_path):
    """mmdet would fetch it, as the folder does not come before it."""

    def rename(content):
        for image in content['images']:
            image['file_name'] = f'images/{image["file_name"]}'
        content['images'][1]['file_name'] = 'http://127.0.0.1:9/1.jpg'

    cfg = coco(rename)
    cfg.train_dataloader.dataset.data_prefix = dict(img='')
    text = refusal(cfg, splits=['train'])
    assert "'http://127.0.0.1:9/1.jpg'" in text
    assert str(tmp_path / 'boxes.json') in text


def test_what_is_left_out_is_said(coco, tmp_path, warnings):
    def spoil(content):
        content['annotations'][1]['category_id'] = 77
        content['annotations'][2]['image_id'] = 88

    check_detection_data(coco(spoil))
    assert '1 of 3 annotations are left out' in warnings[0]
    assert 'image_id=88 of annotation 3' in warnings[0]
    assert 'category_id=77 of annotation 2' in warnings[1]


# Pascal VOC


@pytest.mark.parametrize('case', VOC, ids=lambda case: case.name)
def test_bad_voc_files(tmp_path, case):
    """The second file of two, which is good otherwise."""
    write_voc(tmp_path)
    path = tmp_path / 'VOC2007/Annotations/b2.xml'
    path.write_text(case.make(path.read_text()))
    if not case.words:
        check_detection_data(voc_config(tmp_path))
        return
    text = refusal(voc_config(tmp_path))
    for words in (*case.words, str(path)):
        assert words in text
    assert len(text) < 2000


def test_every_voc_file_is_checked(tmp_path):
    """The last but one of many."""
    objects = {f'i{n:03d}': ('cat', 1, 20) for n in range(300)}
    objects['i298'] = ('cat', 20, 1)
    write_voc(tmp_path, **objects)
    assert 'i298.xml' in refusal(voc_config(tmp_path))


@pytest.mark.parametrize(
    'name',
    [
        '../../../secret',
        '/etc/passwd',
        'a/../../b',
        'http://127.0.0.1:9/b',
        '',
    ],
)
def test_voc_list_cannot_leave_its_folder(tmp_path, name):
    listing = write_voc(tmp_path)
    listing.write_text(f'a1\n{name}\nb2\n')
    text = refusal(voc_config(tmp_path))
    assert repr(name) in text
    assert str(listing) in text
    assert 'not a path below' in text


def test_voc_list_that_is_no_text(tmp_path):
    listing = write_voc(tmp_path)
    listing.write_bytes(b'a1\n\xff\n')
    text = refusal(voc_config(tmp_path))
    assert str(listing) in text
    assert 'not a list' in text


def test_a_pipe_is_no_annotation(tmp_path):
    listing = write_voc(tmp_path)
    path = tmp_path / 'VOC2007/Annotations/b2.xml'
    path.unlink()
    os.mkfifo(path)
    assert str(path) in refusal(voc_config(tmp_path), FileNotFoundError)
    listing.unlink()
    os.mkfifo(listing)
    assert str(listing) in refusal(voc_config(tmp_path), FileNotFoundError)


def test_voc_list_is_missing(tmp_path):
    listing = write_voc(tmp_path)
    listing.unlink()
    text = refusal(voc_config(tmp_path), FileNotFoundError)
    where = 'train_dataloader.dataset.dataset.datasets[0].ann_file'
    assert where in text
    assert str(listing) in text


def test_voc_list_is_empty(tmp_path):
    write_voc(tmp_path).write_text('')
    assert 'no images' in refusal(voc_config(tmp_path))


@pytest.mark.parametrize(
    'name', ['Annotations/b2.xml', 'JPEGImages/b2.jpg', 'JPEGImages']
)
def test_voc_file_is_missing(tmp_path, name):
    write_voc(tmp_path)
    path = tmp_path / 'VOC2007' / name
    path.rename(tmp_path / 'elsewhere')
    text = refusal(voc_config(tmp_path), FileNotFoundError)
    assert str(path) in text
    assert 'data_prefix.sub_data_root' in text


def test_voc_without_a_known_class(tmp_path):
    write_voc(tmp_path, a1=('gull', 1, 20), b2=('crow', 1, 20))
    text = refusal(voc_config(tmp_path))
    assert "found 'crow', 'gull'" in text
    assert 'metainfo=dict(classes=...)' in text


def test_voc_with_some_unknown_classes(tmp_path, warnings):
    write_voc(tmp_path, a1=('gull', 1, 20))
    check_detection_data(voc_config(tmp_path))
    assert "'gull' are left out" in warnings[0]


# Settings


@pytest.mark.parametrize(
    ('change', 'setting'),
    [
        (
            lambda heads: heads.bbox_head[1].update(num_classes=80),
            'model.roi_head.bbox_head[1].num_classes=80',
        ),
        (
            lambda heads: heads.mask_head.update(num_classes=2),
            'model.roi_head.mask_head.num_classes=2',
        ),
    ],
)
def test_heads_of_another_number_of_classes(coco, change, setting):
    cfg = coco()
    change(cfg.model.roi_head)
    text = refusal(cfg)
    assert setting in text
    assert 'train_dataloader.dataset has 3 classes' in text
    assert setting.split('=')[0] + '=3' in text


def test_a_single_class_needs_its_comma(coco):
    cfg = coco()
    cfg.train_dataloader.dataset.metainfo = dict(classes='cat')
    text = refusal(cfg)
    assert "classes='cat'" in text
    assert 'comma' in text


def test_several_files_need_a_wrapper(coco):
    cfg = coco()
    cfg.train_dataloader.dataset.ann_file = ['boxes.json', 'more.json']
    text = refusal(cfg)
    assert 'train_dataloader.dataset.ann_file' in text
    assert 'ConcatDataset' in text
