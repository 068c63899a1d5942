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

NAN, INF = float('nan'), float('inf')
LOST = ...  # the key goes


def changed(content, part, values):
    """Return the file's text with values of a part's second entry."""
    content[part][1].update(values)
    entry = content[part][1]
    content[part][1] = {k: v for k, v in entry.items() if v is not LOST}
    return json.dumps(content)


def loaded(cfg):
    """Return the boxes that mmdet itself trains on, by image."""
    settings = dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True)
    del settings['type']
    return [
        sum(not item['ignore_flag'] for item in image['instances'])
        for image in CocoDataset(**settings).load_data_list()
    ]


# Whole files


ENTRY = "'annotations' that is not an object"


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'line 1'),
        ('{"images": [', 'not JSON: Expecting value: line 1'),
        ('<html>404</html>', 'not JSON: Expecting value: line 1'),
        ('[' * 10**6, 'nested too deep'),
        (f'[{"9" * 5000}]', '4300 digits'),
        ('[]', 'holds a list'),
        (dict(images=[]), 'no images'),
        (dict(categories=None), 'no categories'),
        (dict(images={'a': 1}), 'is a dict'),
        (dict(annotations=[1, 2]), ENTRY),
        (dict(annotations=[None]), ENTRY),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_files(coco, content, tmp_path, text, words, refuse):
    if isinstance(text, dict):
        text = json.dumps(content | text)
    (tmp_path / 'boxes.json').write_text(text)
    refuse(coco, words, str(tmp_path / 'boxes.json'))


# Entries


SQUARE = [2, 2, 9, 2, 9, 9, 2, 9]


def polygon(x):
    return [[x, *SQUARE[1:]]]


def runs(counts, size=(40, 60)):
    return dict(size=list(size), counts=counts)


BAD = {
    'images': [
        (dict(id=[1]), 'id=[1]'),
        (dict(id=0), 'id=0 twice', "'1.jpg'"),
        (dict(file_name=5), 'file_name=5'),
        (dict(width='60'), "width='60'"),
        (dict(width=0), 'width=0', '> 0'),
        (dict(height=NAN), 'height=nan'),
        (dict(width=2**20, height=513), 'more than masks'),
        (dict(file_name='/etc/passwd'), "'/etc/passwd'", 'not a path below'),
        (dict(file_name='../../a'), "'../../a'", 'not a path below'),
        (dict(file_name='1.jpg\0'), 'not a path below'),
        (dict(file_name='http://127.0.0.1:9/1.jpg'), 'not a path', '"://"'),
        (dict(file_name=''), "''", 'not a path below'),
        (dict(file_name='gone.jpg'), 'gone.jpg', 'not exist'),
    ],
    'categories': [
        (dict(id={}), 'id={}'),
        (dict(id=0), 'id=0 twice'),
        (dict(name=5), 'name=5'),
        (dict(name='cat'), "'cat' twice"),
        (dict(name='eagle'), "missing 'dog'; found 'cat', 'eagle', 'owl'")
        + ('train_dataloader.dataset.metainfo=dict(classes=...)',),
    ],
    'annotations': [
        (dict(id=LOST), 'without id'),
        (dict(area=LOST), 'without area'),
        (dict(bbox=LOST), 'without bbox'),
        (dict(id=1), 'id=1 twice'),
        (dict(area='9'), "area='9'"),
        (dict(iscrowd=LOST), 'iscrowd missing'),
        (dict(iscrowd=None), 'iscrowd None'),
        (dict(iscrowd='0'), "iscrowd '0'"),
        (dict(bbox='1234'), '[x, y, width'),
        (dict(bbox=[5, 6, 20]), '[x, y, width', "'1.jpg'"),
        (dict(bbox=[5, 6, 20, 3, 1]), '[x, y, width'),
        (dict(bbox=[5, 6, '20', 3]), 'finite numbers'),
        (dict(bbox=[NAN, 6, 20, 3]), 'finite numbers'),
        (dict(bbox=[5, 6, INF, 3]), 'finite numbers'),
        (dict(bbox=[5, 6, -20, 3]), 'negative size'),
        (dict(bbox=[61, 6, 20, 3]), 'outside of the image (60x40)'),
    ],
}
BAD_MASKS = [
    ('2,2,9,2', 'neither polygons nor'),
    (SQUARE, 'not a list of polygons'),
    ([SQUARE, SQUARE[1:]], '7 coordinates'),
    ([[[2, 2], [9, 2]]], 'not finite'),
    (polygon(NAN), 'not finite'),
    (polygon(10**400), 'not finite'),
    # Ten sides are 600 px.
    (polygon(601), 'coordinate 601,', 'far outside', '(60x40)'),
    (polygon(-601), 'coordinate -601,', 'far outside'),
    (polygon(1e300), 'coordinate 1e+300,', 'far outside'),
    # 2**28 / 1200 = 223696.2...
    ([[-600, 2, 600, 2] * 111_850], '223700 points'),
    (dict(size=[40, 60]), 'not run lengths'),
    (runs([2395, 10**9]), '1000002395 pixels'),
    (runs([2410, -10]), 'not run lengths'),
    (runs([2400], (60, 40)), '[60, 40] instead', '[40, 60]'),
    (runs('kZ26'), '2401 pixels in all'),
    (runs('0'), 'of 0 pixels in all'),
    (runs('Z[2F'), 'pixels in all'),  # one is below 0
    (runs('kZ'), 'not run lengths'),  # cut off
    (runs('garbage!!!'), 'not run lengths'),
    (runs('kZRPPPPPPP05'), 'not run lengths'),  # of too many bits
    (runs('kZ25\ud800'), 'not run lengths'),
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
def test_bad_entries(coco, content, tmp_path, part, values, words, refuse):
    """Refused with the file and the entry."""
    (tmp_path / 'boxes.json').write_text(changed(content, part, values))
    where = () if 'not exist' in words else [str(tmp_path / 'boxes.json')]
    refuse(coco, *words, *where)


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
def test_good_masks(coco, content, tmp_path, mask):
    text = changed(content, 'annotations', dict(segmentation=mask))
    (tmp_path / 'boxes.json').write_text(text)
    check_detection_data(coco)
    assert loaded(coco) == [1, 1, 1]


@pytest.mark.parametrize(
    ('values', 'count', 'warned'),
    [
        (dict(bbox=[5, 6, 0, 3]), 0, ''),
        (dict(area=0), 0, ''),
        (dict(iscrowd=1), 0, ''),
        (dict(category_id=77), 0, 'category_id=77 of annotation 2'),
        (dict(image_id=77), 0, 'image_id=77 of annotation 2'),
        # As corners, of which the last two are beyond as sizes.
        (dict(bbox=[30, 20, 55, 38]), 1, 'reach beyond their image (e.g. in'),
    ],
)
def test_entries_that_pass(
    coco, content, tmp_path, values, count, warned, log
):
    """Left out by mmdet, or read; a warning where it is a mistake."""
    text = changed(content, 'annotations', values)
    (tmp_path / 'boxes.json').write_text(text)
    check_detection_data(coco, ['train'])
    assert loaded(coco)[1] == count
    assert len(log.messages) == bool(warned)
    assert all(warned in text for text in log.messages)
    assert all('1 of 3' in text for text in log.messages)


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
def test_nothing_to_learn(coco, content, tmp_path, values, reason, refuse):
    """As mmdet itself finds."""
    for item in content['annotations']:
        item.update(values)
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    refuse(coco, 'nothing to learn', reason)
    assert not any(loaded(coco))


@pytest.mark.parametrize('missing', [None, []])
def test_masks_that_the_pipeline_loads(
    coco, content, tmp_path, missing, refuse
):
    for item in content['annotations']:
        item['segmentation'] = [[5, 6, 25, 6, 25, 16]]
    content['annotations'][1]['segmentation'] = missing
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    check_detection_data(coco)
    steps = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    coco.train_dataloader.dataset.pipeline = steps
    words = ('1 of 3 annotations have no segmentation', 'annotation 2')
    refuse(coco, *words, 'with_mask=False')


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
        assert mask_problem(packed, dict(height=height, width=width)) is None
        assert packed_total(packed['counts']) == height * width
    for counts in (
        [2**28, 2**28],
        [1, 5, 9, 2**28, 0, 0],
        [2, 3, 0, 1, 4],
        [7, 0],
    ):
        row = runs(counts, (1, sum(counts)))
        packed = coco_mask.frPyObjects(row, *row['size'])['counts'].decode()
        assert packed_total(packed) == sum(counts)
        image = dict(height=1, width=sum(counts) + 1)
        problem = mask_problem(runs(packed, (1, sum(counts) + 1)), image)
        assert f'{sum(counts)} pixels in all' in problem


# Images


def shrink(path):
    image = Image.open(path)
    image.resize((30, 20)).save(path)


def turn(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (shrink, ['is 30x20 px']),
        (turn, ['is 40x60 px, its annotation', 'EXIF orientation turns it']),
    ],
)
def test_images_of_another_size(coco, tmp_path, change, words, refuse, log):
    change(tmp_path / 'images/1.jpg')
    check_detection_data(coco, ['train'])
    assert '1 of 3 images opened differ in size' in log.messages[0]
    change(tmp_path / 'images/2.jpg')
    refuse(coco, *words, "images/1.jpg'", 'says 60x40')
    if change is turn:  # a run that does not turn them, either
        steps = [dict(type='X', color_type='color_ignore_orientation')]
        coco.train_dataloader.dataset.pipeline = steps
        check_detection_data(coco, ['train'])


def test_missing_and_damaged_images(coco, tmp_path, refuse):
    path = tmp_path / 'images/2.jpg'
    path.write_text('404 not found')
    refuse(coco, str(path), 'no image')
    path.unlink()
    refuse(coco, str(path), '1 of 3 images', 'not exist')


# Classes and settings


def test_default_classes_are_cocos(coco, refuse):
    """As when a user forgets metainfo: no owls among them."""
    del coco.train_dataloader.dataset['metainfo']
    heads = coco.model.roi_head
    for head in (*heads.bbox_head, heads.mask_head):
        head.num_classes = 80
    refuse(coco, '78 of 80 classes', "found 'cat', 'dog', 'owl'")


def test_order_of_categories_is_the_files(coco, content, tmp_path, refuse):
    """mmdet numbers classes in the file's order."""
    content['categories'].reverse()
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    refuse(coco, 'in another order', "set classes=('owl', 'dog', 'cat')")


def test_image_names_are_no_addresses_without_a_folder_either(
    coco, content, tmp_path, refuse
):
    """mmdet would fetch it, as the folder does not come before it."""
    for image in content['images']:
        image['file_name'] = f'images/{image["file_name"]}'
    content['images'][1]['file_name'] = 'http://127.0.0.1:9/1.jpg'
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    coco.train_dataloader.dataset.data_prefix = dict(img='')
    where = str(tmp_path / 'boxes.json')
    refuse(coco, "'http://127.0.0.1:9/1.jpg'", where, splits=['train'])
