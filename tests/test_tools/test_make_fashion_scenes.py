# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of make_fashion_scenes.py, on pictures and photographs made up."""

import gzip
import json

import cv2
import numpy as np
import pytest
from commands import call, load_tool

SCRIPT = 'tools/dataset_converters/make_fashion_scenes.py'
CLASSES = (
    *('tshirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt'),
    *('sneaker', 'bag', 'ankle_boot'),
)
COUNTS = {'train': 12, 'val': 10}
GRAYS = {'train': 250, 'val': 60}  # of garments
PHOTOS = 4

tool = load_tool('dataset_converters/make_fashion_scenes')


def write_idx(path, values):
    """Write bytes in the IDX format."""
    header = bytes((0, 0, 8, values.ndim))
    header += np.array(values.shape, '>u4').tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


def write_garments(folder, split, stem):
    """Write three rectangles of one gray for each class, in another order."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 3)[::-1]
    images = np.zeros((30, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        images[i, 4:24, 6 : 12 + label] = GRAYS[split]
    write_idx(folder / f'{stem}-images-idx3-ubyte.gz', images)
    write_idx(folder / f'{stem}-labels-idx1-ubyte.gz', labels)
    return labels


@pytest.fixture
def material(tmp_path):
    """The folders of garments and photographs: three blue, the last red."""
    fashion, photos = tmp_path / 'fashion', tmp_path / 'photos'
    fashion.mkdir()
    (photos / 'more').mkdir(parents=True)
    write_garments(fashion, 'train', 'train')
    write_garments(fashion, 'val', 't10k')
    for i in range(PHOTOS):
        color = (0, 0, 200) if i == PHOTOS - 1 else (200, 0, 0)
        photo = np.full((120 + 200 * i, 300, 3), color, np.uint8)
        assert cv2.imwrite(str(photos / 'more' / f'{i}.png'), photo)
    cv2.imwrite(str(photos / 'tiny.png'), np.zeros((20, 900, 3), np.uint8))
    (photos / 'zz_link.png').symlink_to(photos / 'more' / '0.png')
    (photos / 'broken.jpg').write_bytes(b'no photograph')
    return fashion, photos


def make(material, out, *words):
    """Run the tool on few scenes; return its exit code."""
    fashion, photos = material
    return tool.main(
        [
            *('--fashion', str(fashion), '--photos', str(photos)),
            *('--train', '12', '--val', '10', '--size', '96'),
            *('--workers', '0', '--out', str(out), *words),
        ]
    )


def test_scenes_and_their_annotations(material, tmp_path):
    out = tmp_path / 'out'
    assert make(material, out) == 0
    for split, count in COUNTS.items():
        coco = json.loads(
            (out / f'annotations/instances_{split}.json').read_text()
        )
        names = [item['name'] for item in coco['categories']]
        assert names == [*CLASSES]
        assert len(coco['images']) == count
        for number, image in enumerate(coco['images']):
            label = number % 10
            assert image['file_name'].startswith(f'{CLASSES[label]}/')
            picture = cv2.imread(str(out / split / image['file_name']))
            assert picture.shape == (96, 96, 3)
            objects = [
                item
                for item in coco['annotations']
                if item['image_id'] == image['id']
            ]
            assert 1 <= len(objects) <= 4
            largest = max(objects, key=lambda item: item['area'])
            assert largest['category_id'] == label + 1
            for item in objects:
                # The picture that it names has its class.
                assert (29 - item['sample_id']) % 10 == (
                    item['category_id'] - 1
                )
            is_ground = np.ones((96, 96), bool)
            for item in objects:
                x, y, w, h = item['bbox']
                rows, columns = (
                    slice(max(low - 3, 0), low + side + 3)
                    for low, side in ((y, h), (x, w))
                )
                is_ground[rows, columns] = False
            if is_ground.sum() > 500:
                # The splits share no photograph.
                blue, _, red = picture[is_ground].mean(0)
                assert (blue > red) == (split == 'train')
        voc = out / 'VOC2007/Annotations' / f'{split}_00003.xml'
        assert '<name>dress</name>' in voc.read_text()


def test_garments_have_the_grays_of_their_split(material):
    fashion, photos = material
    sources = tool.load_sources(fashion, photos, 96)
    for split, gray in GRAYS.items():
        assert sources[split].objects.max() == gray
        assert sources[split].samples.tolist() == [*range(30)]
    sizes = [
        [photo.shape[:2] for photo in sources[split].photos]
        for split in COUNTS
    ]
    # At most three sides of 96 px remain; 720 x 300 is cut to 691 x 288.
    assert sizes == [[(120, 300), (307, 288), (499, 288)], [(691, 288)]]


def test_same_bytes_again_and_by_other_processes(material, tmp_path):
    assert make(material, tmp_path / 'a') == 0
    fashion, photos = material
    done = call(
        *(SCRIPT, '--fashion', fashion, '--photos', photos),
        *('--train', 12, '--val', 10, '--size', 96, '--workers', 2),
        *('--out', tmp_path / 'b'),
    )
    assert done.returncode == 0, done.output
    for path in (tmp_path / 'a').rglob('*.*'):
        twin = tmp_path / 'b' / path.relative_to(tmp_path / 'a')
        assert path.read_bytes() == twin.read_bytes()
    assert make(material, tmp_path / 'c', '--seed', '1') == 0
    name = 'train/tshirt/00000.jpg'
    assert (tmp_path / 'a' / name).read_bytes() != (
        tmp_path / 'c' / name
    ).read_bytes()


def labels_of(count, most=9):
    return np.minimum(np.arange(count) % 10, most).astype(np.uint8)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (
            lambda fashion, _: (
                fashion / 't10k-labels-idx1-ubyte.gz'
            ).unlink(),
            'lacks t10k-labels-idx1-ubyte, also t10k-labels-idx1-ubyte.gz',
        ),
        (
            lambda fashion, _: (
                fashion / 'train-images-idx3-ubyte.gz'
            ).write_bytes(b'torn'),
            'train-images-idx3-ubyte.gz is damaged',
        ),
        (
            lambda fashion, _: write_idx(
                fashion / 'train-images-idx3-ubyte.gz', labels_of(30)
            ),
            'is not a whole IDX file of bytes in 3 dimensions',
        ),
        (
            lambda fashion, _: write_idx(
                fashion / 'train-labels-idx1-ubyte.gz', labels_of(29)
            ),
            '(30, 28, 28) and 29 labels',
        ),
        (
            lambda fashion, _: write_idx(
                fashion / 't10k-labels-idx1-ubyte.gz', labels_of(30, most=8)
            ),
            't10k must have the classes 0 to 9, but lacks or adds [9]',
        ),
        (
            lambda _, photos: [
                path.unlink() for path in (photos / 'more').glob('[123].png')
            ],
            'has 1 photographs (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff) '
            'of at least 96 px',
        ),
    ],
)
def test_material_that_does_not_do_is_refused(
    material, tmp_path, capsys, damage, message
):
    damage(*material)
    assert make(material, tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith('error: ')
    assert not (tmp_path / 'out').exists()


def test_material_of_other_folders_needs_overwrite(material, tmp_path, capsys):
    out = tmp_path / 'out'
    assert make(material, out) == 0
    assert make(material, out) == 0
    assert 'already' in capsys.readouterr().out
    fashion, photos = material
    moved = photos.rename(tmp_path / 'moved')
    assert make((fashion, moved), out) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert make((fashion, moved), out, '--overwrite') == 0
