# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of make_fashion_scenes.py, on pictures and photographs made up.

What the makers of scenes share is tested on digits.
"""

import gzip
import json

import cv2
import numpy as np
import pytest
from commands import load_tool

COUNTS = {'train': 12, 'val': 10}
GRAYS = {'train': 250, 'val': 60}  # of garments
STEMS = {'train': 'train', 'val': 't10k'}
LABELS = np.tile(np.arange(10, dtype=np.uint8), 3)

tool = load_tool('dataset_converters/make_fashion_scenes')


def write_idx(path, values):
    """Write bytes in the IDX format."""
    header = bytes((0, 0, 8, values.ndim))
    header += np.array(values.shape, '>u4').tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def material(tmp_path):
    """Three rectangles of one gray a class; photos: 3 blue, the last red."""
    fashion, photos = tmp_path / 'fashion', tmp_path / 'photos'
    fashion.mkdir()
    (photos / 'more').mkdir(parents=True)
    labels = LABELS[::-1]
    for split, stem in STEMS.items():
        images = np.zeros((30, 28, 28), np.uint8)
        for i, label in enumerate(labels):
            images[i, 4:24, 6 : 12 + label] = GRAYS[split]
        write_idx(fashion / f'{stem}-images-idx3-ubyte.gz', images)
        write_idx(fashion / f'{stem}-labels-idx1-ubyte.gz', labels)
    for i in range(4):
        color = (0, 0, 200) if i == 3 else (200, 0, 0)
        photo = np.full((120 + 200 * i, 300, 3), color, np.uint8)
        assert cv2.imwrite(str(photos / 'more' / f'{i}.png'), photo)
    cv2.imwrite(str(photos / 'tiny.png'), np.zeros((20, 900, 3), np.uint8))
    (photos / 'zz_link.png').symlink_to(photos / 'more' / '0.png')
    (photos / 'broken.jpg').write_bytes(b'no photograph')
    return fashion, photos


def make(material, out, *words):
    """Make few scenes; return the exit code."""
    fashion, photos = map(str, material)
    return tool.main(
        [
            *('--fashion', fashion, '--photos', photos, '--train', '12'),
            *('--val', '10', '--size', '96', '--workers', '0'),
            *('--out', str(out), *words),
        ]
    )


def test_scenes_and_their_annotations(material, tmp_path):
    out = tmp_path / 'out'
    assert make(material, out) == 0
    for split, count in COUNTS.items():
        file = out / f'annotations/instances_{split}.json'
        coco = json.loads(file.read_text())
        names = [item['name'] for item in coco['categories']]
        assert (names[0], names[9]) == ('tshirt', 'ankle_boot')
        assert len(coco['images']) == count
        for image in coco['images']:
            is_ground = np.ones((96, 96), bool)
            for item in coco['annotations']:
                if item['image_id'] != image['id']:
                    continue
                # The picture that it names has its class.
                sample = 29 - item['sample_id']
                assert sample % 10 == item['category_id'] - 1
                x, y, w, h = item['bbox']
                top, left = max(y - 3, 0), max(x - 3, 0)
                is_ground[top : y + h + 3, left : x + w + 3] = False
            if is_ground.sum() > 500:
                # The splits share no photograph.
                picture = cv2.imread(str(out / split / image['file_name']))
                blue, _, red = picture[is_ground].mean(0)
                assert (blue > red) == (split == 'train')


def test_material_of_each_split(material):
    sources = tool.load_sources(*material, 96)
    for split, gray in GRAYS.items():
        assert sources[split].objects.max() == gray
        assert sources[split].samples.tolist() == [*range(30)]
    sizes = [[p.shape[:2] for p in sources[split].photos] for split in COUNTS]
    # At most three sides of 96 px remain; 720 x 300 is cut to 691 x 288.
    assert sizes == [[(120, 300), (307, 288), (499, 288)], [(691, 288)]]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('t10k-labels-idx1', None, 'lacks t10k-labels-idx1-ubyte, also t10k-'),
        ('train-images-idx3', b'', 'train-images-idx3-ubyte.gz is not a wh'),
        ('train-images-idx3', LABELS, 'is not a whole IDX file of bytes in 3'),
        ('train-labels-idx1', LABELS[:29], '(30, 28, 28) and 29 labels'),
        (
            *('t10k-labels-idx1', LABELS.clip(0, 8)),
            't10k must have the classes 0 to 9, but lacks or adds [9]',
        ),
        (
            *('photos', None),
            'has 1 photographs (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff) '
            'of at least 96 px',
        ),
    ],
)
def test_material_that_does_not_do_is_refused(
    material, tmp_path, capsys, name, content, message
):
    fashion, photos = material
    path = fashion / f'{name}-ubyte.gz'
    if name == 'photos':
        for photo in (photos / 'more').glob('[123].png'):
            photo.unlink()
    elif content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(b'torn')
    else:
        write_idx(path, content)
    assert make(material, tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert message in error
    assert not (tmp_path / 'out').exists()
