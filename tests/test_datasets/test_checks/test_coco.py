# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What labeling tools get wrong in COCO files, and what is said about it."""

import json
from itertools import chain

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools import mask as coco_mask

from mmscfs.datasets.checks.detection import check_detection_data
from mmscfs.datasets.checks.masks import mask_problem, packed_total

NAN = float('nan')
LOST = ...  # the key goes
SQUARE = [2, 2, 9, 2, 9, 9, 2, 9]
LOAD_MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)


@pytest.fixture
def change(content, tmp_path):
    """Return what changes entries of the file, the second box by default."""

    def change(values, part='annotations', which=slice(1, 2)):
        for entry in content[part][which]:
            entry.update(values)
            for key in [k for k, v in entry.items() if v is LOST]:
                del entry[key]
        (tmp_path / 'boxes.json').write_text(json.dumps(content))
        return str(tmp_path / 'boxes.json')

    return change


def loaded(cfg):
    """Return the boxes that mmdet itself trains on, by image."""
    settings = dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True)
    del settings['type']
    return [
        sum(not item['ignore_flag'] for item in image['instances'])
        for image in CocoDataset(**settings).load_data_list()
    ]


def polygon(x):
    return [[x, *SQUARE[1:]]]


def runs(counts, size=(40, 60)):
    return dict(size=list(size), counts=counts)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"images": [', 'not JSON: Expecting value: line 1'),
        ('[' * 10**6, 'nested too deep'),
        ('[]', 'holds a list'),
        (dict(images=[]), 'no images'),
        (dict(annotations=[1]), "'annotations' that is not an object"),
        (dict(annotations=[]), 'no annotations'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_files(coco, content, tmp_path, text, words, refuse):
    if isinstance(text, dict):
        text = json.dumps(content | text)
    (tmp_path / 'boxes.json').write_text(text)
    refuse(coco, words, str(tmp_path / 'boxes.json'))


BAD = {
    'images': [
        (dict(id=[1]), 'id=[1]'),
        (dict(id=0), 'id=0 twice', "'1.jpg'"),
        (dict(id='a'), 'numbers and texts as id'),
        (dict(id=2**63), f'id={2**63}', '64 bits'),
        (dict(file_name=''), "file_name=''"),
        (dict(width=0), 'width=0', '> 0'),
        (dict(height=NAN), 'height=nan'),
        (dict(file_name='/etc/passwd'), "'/etc/passwd'", 'not a path below'),
        (dict(file_name='gone.jpg'), 'gone.jpg', '1 of 3 images', 'not exist'),
    ],
    'categories': [
        (dict(name='cat'), "'cat' twice"),
        (dict(name='eagle'), "missing 'dog'; found 'cat', 'eagle', 'owl'")
        + ('train_dataloader.dataset.metainfo=dict(classes=...)',),
    ],
    'annotations': [
        (dict(area=LOST), 'without area'),
        (dict(iscrowd=LOST), 'without iscrowd', 'Add "iscrowd": 0 to each'),
        (dict(image_id=True), 'image_id=True'),
        (dict(id=1e400), 'id=inf', '64 bits'),
        (dict(iscrowd=None), 'iscrowd=None', '0 or 1'),
        (dict(bbox=[5, 6, 20]), '[x, y, width', "'image_id': 1"),
        (dict(bbox=[NAN, 6, 20, 3]), 'finite numbers'),
        (dict(bbox=[5, 6, -20, 3]), "'1.jpg'", 'negative size'),
        (dict(bbox=[61, 6, 20, 3]), 'outside of the image (60x40)'),
    ],
}
BAD_MASKS = [
    ('2,2,9,2', 'neither polygons nor'),
    (SQUARE, 'not a list of polygons'),
    ([SQUARE, SQUARE[1:]], '7 coordinates'),
    (polygon(NAN), 'not finite'),
    # Ten sides are 600 px.
    (polygon(601), 'coordinate 601,', 'far outside', '(60x40)'),
    (dict(size=[40, 60]), 'not run lengths'),
    (runs([2395, 10**9]), '1000002395 pixels'),
    (runs([2400], (60, 40)), '[60, 40] instead', '[40, 60]'),
    (runs('kZ26'), '2401 pixels in all'),
    (runs('Z[2F'), 'pixels in all'),  # one is below 0
    (runs('garbage!!!'), 'not run lengths'),
]


@pytest.mark.parametrize(
    ('part', 'values', 'words'),
    chain(
        ((p, values, words) for p in BAD for values, *words in BAD[p]),
        (
            ('annotations', dict(segmentation=mask), words)
            for mask, *words in BAD_MASKS
        ),
    ),
    ids=lambda value: str(value)[:40].replace('\0', '0'),
)
def test_bad_entries(coco, change, part, values, words, refuse):
    """Refused with the file and the entry."""
    path = change(values, part)
    refuse(coco, *words, *([] if 'not exist' in words else [path]))


@pytest.mark.parametrize(
    'mask',
    [
        [],
        [SQUARE],
        [[2, 2, 9, 9]],  # of two points
        *map(polygon, (-5.5, 66, 600, -600)),
        runs([2395, 5]),
        # 2395 = (27, 10, 2) in fives of bits, from the lowest on; 27 + 32 is
        # "k" from "0" on, 10 + 32 is "Z".
        runs('kZ25'),
    ],
    ids=str,
)
def test_good_masks(coco, change, mask):
    change(dict(segmentation=mask))
    check_detection_data(coco)
    assert loaded(coco) == [1, 1, 1]


@pytest.mark.parametrize(
    ('values', 'count', 'warned'),
    [
        # As tables write whole numbers.
        (dict(id=2.0, image_id=1.0, category_id=10.0, iscrowd=0.0), 1, ''),
        (dict(category_id=77), 0, "category_id': 77"),
        (dict(image_id=77), 0, "image_id': 77"),
        # As corners, of which the last two are beyond as sizes.
        (dict(bbox=[30, 20, 55, 38]), 1, 'reach beyond their image (e.g. in'),
    ],
)
def test_entries_that_pass(coco, change, values, count, warned, log):
    """Left out by mmdet, or read; a warning where it is a mistake."""
    change(values)
    check_detection_data(coco, ['train'])
    assert loaded(coco)[1] == count
    assert len(log.messages) == bool(warned)
    assert all(warned in text for text in log.messages)
    assert all('1 of 3' in text for text in log.messages)


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        (dict(image_id=99), 'with an image_id that the file lacks'),
        (dict(category_id=99), 'with a category_id that the file lacks'),
        (dict(area=0), 'with area <= 0'),
        (dict(iscrowd=1), 'with iscrowd=1'),
        (dict(bbox=[0.1, 0.1, 0.5, 0.2]), 'fractions of the image'),
        (dict(bbox=[5, 6, 0, 4]), 'with a box below 1 px'),
    ],
)
def test_nothing_to_learn(coco, change, values, reason, refuse, log):
    """As mmdet itself finds; most of the objects are worth a warning."""
    change(values, which=slice(2))
    check_detection_data(coco)
    assert '2 of 3 annotations are left out: 2 with ' in log.messages[0]
    change(values, which=slice(3))
    refuse(coco, 'nothing to learn', 'any of its 3 images', reason)
    assert not any(loaded(coco))
    refuse(coco, 'nothing to evaluate', reason, splits=['val'])


def test_images_that_a_filter_leaves_out(coco, refuse):
    settings = coco.train_dataloader.dataset
    settings.filter_cfg = dict(filter_empty_gt=True, min_size=40)
    check_detection_data(coco)
    settings.filter_cfg.min_size = 41  # of 60x40 px
    refuse(coco, '3 with an image below filter_cfg.min_size=41')


def test_ids_from_0_are_not_counted_by_pycocotools(coco, change, log):
    change(dict(id=0))
    check_detection_data(coco, ['train'])
    assert not log.messages
    check_detection_data(coco, ['val'])
    assert 'number the annotations from 1' in log.messages[0]


def test_texts_as_ids_of_annotations(coco, change, refuse):
    """pycocotools makes floats of them, after an evaluation."""
    for i in range(3):
        change(dict(id=f'a{i}'), which=slice(i, i + 1))
    check_detection_data(coco, ['train'])
    refuse(coco, "id='a0'", 'number the annotations from 1', splits=['val'])


@pytest.mark.parametrize('missing', [None, []])
def test_masks_that_the_pipeline_loads(coco, change, missing, refuse):
    change(dict(segmentation=[[5, 6, 25, 6, 25, 16]]), which=slice(3))
    change(dict(segmentation=missing))
    check_detection_data(coco)
    coco.train_dataloader.dataset.pipeline = [LOAD_MASKS]
    words = ('1 of 3 annotations have no segmentation', "{'id': 2")
    refuse(coco, *words, 'with_mask=False')


def test_masks_of_few_points(coco, change, refuse):
    """By the first polygon pycocotools tells what a mask is."""
    for loader in (coco.train_dataloader, coco.val_dataloader):
        loader.dataset.pipeline = [LOAD_MASKS]
    change(dict(segmentation=[SQUARE]), which=slice(3))
    change(dict(segmentation=[[5, 6, 25, 16], SQUARE]))
    check_detection_data(coco, ['train'])
    words = '1 of 3 annotations have no segmentation, or one of fewer than'
    refuse(coco, words, splits=['val'])


def test_annotations_of_the_metric(coco, content, tmp_path, refuse):
    """Its own setting, which users forget; pycocotools is silent until."""
    own = tmp_path / 'boxes.json'
    metric = dict(type='CocoMetric', metric='bbox')
    for path in (str(own), None):
        coco.val_evaluator = [dict(metric, ann_file=path)]
        check_detection_data(coco, ['val'])
    coco.val_evaluator = dict(metric, ann_file='data/coco/instances.json')
    words = "val_evaluator.ann_file='data/coco/instances.json' does not exist"
    refuse(coco, words, str(own), splits=['val'])
    coco.val_evaluator.ann_file = str(own)
    coco.val_dataloader.dataset.indices = [0, 2]  # recall would count all
    refuse(coco, str(own), '3 images', 'indices keeps 2', splits=['val'])
    coco.val_dataloader.dataset.indices = -3
    content['images'][0]['file_name'] = 'another.jpg'
    other = tmp_path / 'other.json'
    other.write_text(json.dumps(content))
    coco.val_evaluator.ann_file = str(other)
    refuse(coco, str(other), 'lacks 1 images of', "'0.jpg'", splits=['val'])


def test_packed_masks():
    """Those of pycocotools fill their image; a pixel more or less does not.

    It shows unset memory, or loops for ever, where they do not.
    """
    rng = np.random.default_rng(0)
    for fraction in np.repeat([0, 0.01, 0.1, 0.5, 1], 10):
        height, width = map(int, rng.integers(1, 90, 2))
        drawn = rng.random((height, width)) < fraction
        packed = coco_mask.encode(np.asfortranarray(drawn, np.uint8))
        packed['counts'] = packed['counts'].decode()
        assert mask_problem(packed, (width, height)) is None
        assert packed_total(packed['counts']) == height * width
    for counts in ([2**28, 2**28], [1, 5, 9, 2**28, 0, 0], [2, 3, 0, 1, 4]):
        width = sum(counts)
        row = runs(counts, (1, width))
        packed = coco_mask.frPyObjects(row, 1, width)['counts'].decode()
        assert packed_total(packed) == width
        problem = mask_problem(runs(packed, (1, width + 1)), (width + 1, 1))
        assert f'{width} pixels in all' in problem


def resized(*size):
    return lambda path: Image.open(path).resize(size).save(path)


def turn(path, kind='JPEG'):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, kind, exif=exif)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (resized(30, 20), ['is 30x20 px']),
        (
            turn,
            ['is 40x60 px, its annotation', 'an EXIF orientation turns it'],
        ),
    ],
)
def test_images_of_another_size(coco, tmp_path, spoil, words, refuse, log):
    spoil(tmp_path / 'images/1.jpg')
    check_detection_data(coco, ['train'])
    assert '1 of 3 images opened differ in size' in log.messages[0]
    spoil(tmp_path / 'images/2.jpg')
    refuse(coco, *words, "images/1.jpg'", 'says 60x40')
    if spoil is turn:  # a run that does not turn them, either
        step = dict(type='LoadImageFromFile')
        steps = [dict(step, color_type='color_ignore_orientation')]
        coco.train_dataloader.dataset.pipeline = steps
        check_detection_data(coco, ['train'])


def test_a_box_of_the_turned_image(coco, change, tmp_path, refuse):
    """Its size is that of the file, 60x40 px; the box is 45 px from above."""
    change(dict(bbox=[5, 45, 20, 10]))
    refuse(coco, 'outside of the image (60x40): correct or remove it')
    turn(tmp_path / 'images/1.jpg')
    words = "images/1.jpg' is 40x60 px, its annotation says 60x40 (an EXIF "
    refuse(coco, words, 'exchange width and height in the annotation')
    change(dict(width=40, height=60), 'images')
    check_detection_data(coco)
    # Without EXIF nothing turns it.
    change(dict(width=60, height=40), 'images')
    Image.new('RGB', (40, 60)).save(tmp_path / 'images/1.jpg')
    refuse(coco, 'its annotation says 60x40: annotate the images as they')


def test_images_are_read_as_the_run_reads_them(coco, tmp_path, refuse):
    """Of OpenCV and Pillow only the latter turns a WebP."""
    for i in range(3):
        turn(tmp_path / f'images/{i}.jpg', 'WEBP')
    check_detection_data(coco)
    steps = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='LoadAnnotations', imdecode_backend='cv2'),
    ]
    coco.val_dataloader.dataset.pipeline = steps
    refuse(coco, 'EXIF orientation turns it', 'color_ignore_orientation')


def test_order_of_categories_is_the_files(coco, content, change, refuse):
    """mmdet numbers classes in the file's order."""
    content['categories'].reverse()
    change({})
    refuse(coco, 'in another order', "set classes=('owl', 'dog', 'cat')")
