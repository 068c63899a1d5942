# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Subsets of a detector's annotated images."""

import json

import pytest
from commands import ROOT
from detection_data import make_coco, make_voc
from digit_runs import DETECT
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmscfs.datasets.subsets import (
    Place,
    count_images,
    draw,
    find_annotated,
    restrict,
)

VOC = 'configs/detection/voc/faster-rcnn_r50-c4_24k_voc0712.py'
CLASSES = tuple('0123456789')
WHERE = 'train_dataloader.dataset'


@pytest.fixture
def coco(tmp_path):
    """The digits' detector on ten images, and a function to annotate them.

    Image 3 shows nothing, image 5 a crowd alone. filter_cfg leaves out the
    first of these, so that the second is at place 3.
    """
    init_default_scope('mmdet')
    path = tmp_path / 'a.json'
    make_coco(tmp_path / 'images', path, CLASSES, 10)
    content = json.loads(path.read_text())
    kept = [a for a in content['annotations'] if a['image_id'] != 3]
    for annotation in kept:
        annotation['iscrowd'] = int(annotation['image_id'] == 5)
    path.write_text(json.dumps(content | dict(annotations=kept)))
    cfg = Config.fromfile(ROOT / DETECT)
    cfg.train_dataloader.dataset.update(
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
    )
    return cfg


@pytest.fixture
def voc(tmp_path):
    """VOC 2007 and 2012, with 3 and 5 images."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / VOC)
    for year, count in ((2007, 3), (2012, 5)):
        folder = tmp_path / f'VOC{year}'
        make_voc(folder, 'trainval', ('cat', 'dog'), count)
    for part in cfg.train_dataloader.dataset.datasets:
        part.data_root = str(tmp_path)
    return cfg


def names(cfg):
    """The images that a detector trains on."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [info['img_path'].rpartition('/')[2] for info in infos]


@pytest.mark.parametrize(
    ('indices', 'places'),
    [
        (None, [0, 1, 2, 4, 5, 6, 7, 8]),
        (-2, [7, 8]),
        ([8, 3, 1], [8, 1]),
    ],
)
def test_images_with_objects(coco, indices, places):
    """Of those that a config takes, as a detector counts them."""
    coco.train_dataloader.dataset.indices = indices
    found = find_annotated(coco)
    assert found == [Place(WHERE, i) for i in places]
    # 1, 2, 4, 5, ...: 3 is left out, so 5 is at place 3.
    numbers = [i + 1 if i < 2 else i + 2 for i in sorted(places)]
    assert sorted(names(restrict(coco, found))) == [
        f'{i:06d}.jpg' for i in numbers
    ]


def test_wrapped_data_sets(voc):
    whole = voc.train_dataloader.dataset
    voc.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=whole
    )
    found = find_annotated(voc)
    first, second = (f'{WHERE}.dataset.datasets[{i}]' for i in (0, 1))
    assert [place.dataset for place in found] == [first] * 3 + [second] * 5
    some = [Place(first, 2), Place(second, 0), Place(second, 4)]
    expected = [f'trainval_{i}.jpg' for i in (2, 0, 4)]
    assert names(restrict(voc, some)) == expected * 2
    assert len(names(voc)) == 16
    with pytest.raises(
        ValueError, match=r'--images 2: none .*\.datasets\[0\]'
    ):
        restrict(voc, some[1:])


@pytest.mark.parametrize(
    ('settings', 'error'),
    [
        (dict(type='NoDataset'), "type='NoDataset' is not registered"),
        (
            dict(type='mmpretrain.CustomDataset', with_label=False),
            'reads no boxes: name a config that trains on annotated images',
        ),
    ],
)
def test_data_without_boxes(coco, settings, error, tmp_path):
    root = tmp_path / 'images'
    coco.train_dataloader.dataset = dict(settings, data_root=str(root))
    with pytest.raises(ValueError, match=error):
        find_annotated(coco)


def test_draws_are_nested_and_of_a_seed():
    images = [Place('a', i) for i in range(1000)]
    for seed in (0, 1):
        draws = [{*draw(images, n, seed)} for n in (10, 48, 200, 1000)]
        assert [len(found) for found in draws] == [10, 48, 200, 1000]
        assert draws[0] < draws[1] < draws[2] < draws[3]
        assert draw(images, 48, seed) == sorted(draws[1])
    # Of 48 each, 2.3 are the same by chance.
    assert len({*draw(images, 48, 0)} & {*draw(images, 48, 1)}) < 12


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        ('48 201', '--images 201: 201 of 200 annotated images'),
        ('0.1%', '--images 0.1%: 0 of 200 annotated images'),
        ('10% 20', '--images 10% 20: 20 after 20.'),
    ],
)
def test_counts(words, error):
    assert count_images(['0.5%', '48', '100%'], 200) == [1, 48, 200]
    with pytest.raises(ValueError, match=error):
        count_images(words.split(), 200)
