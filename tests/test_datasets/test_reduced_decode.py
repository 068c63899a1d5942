# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of LoadImage(reduced=True): JPEG decoded smaller than it is."""

import struct
from io import BytesIO

import cv2
import numpy as np
import pytest
import torch
from crop_images import NO_COLOR
from mmengine.dataset import Compose
from PIL import Image

from mmscfs.datasets import ImageFiles, LoadImage, MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms import loading
from mmscfs.datasets.transforms.filters import FILTERS
from mmscfs.datasets.transforms.headers import jpeg_shape, read_header
from mmscfs.datasets.transforms.loading import (
    EncodedImage,
    UnreadableImageError,
    greatest_reduction,
    reduced_box,
)

# A quarter of the usual sizes, and filters that need no more pixels.
SMALL = dict(global_size=56, local_size=24, num_local=8, filters='opencv')


def smooth(height, width):
    """Return an image without frequencies that a reduction leaves out."""
    coarse = np.random.default_rng(4).integers(
        30, 226, (3, 3, 3), dtype=np.uint8
    )
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path, image, **exif):
    """Write a file by Pillow, from BGR."""
    image = image[..., ::-1] if image.ndim == 3 else image
    Image.fromarray(image).save(path, quality=95, **exif)
    return str(path)


@pytest.fixture
def reductions(monkeypatch):
    """The reductions of all decodes."""
    seen, decode = [], loading.decode

    def spy(content, reduction=1):
        seen.append(reduction)
        return decode(content, reduction)

    monkeypatch.setattr(loading, 'decode', spy)
    return seen


def make(path, reduced, index=0, **settings):
    steps = Compose(
        [
            dict(type='LoadImage', reduced=reduced),
            dict(type='MultiCrop', **settings),
        ]
    )
    return steps(dict(img_path=path, sample_idx=SampleKey(index)))


def both(path, index=0, **settings):
    """Return the results with and without the option."""
    return [make(path, r, index, **settings) for r in (True, False)]


def assert_same(ours, full):
    assert np.array_equal(ours['crops'], full['crops'])
    assert ours['ori_shape'] == full['ori_shape']
    assert all(map(torch.equal, ours['img'], full['img']))


def assert_close(ours, full):
    """Same boxes, and much the same views, in levels out of 255.

    Half a pixel is a level or so in these images; the color operations may
    double that.
    """
    assert np.array_equal(ours['crops'], full['crops'])
    off = [
        (view.int() - other.int()).abs().float().mean().item()
        for view, other in zip(ours['img'], full['img'], strict=True)
    ]
    assert np.mean(off) < 1
    assert max(off) < 3


@pytest.mark.parametrize(
    ('height', 'width', 'wanted'),
    [(501, 663, {4}), (333, 257, {2}), (1000, 1501, {8}), (97, 131, {1})],
)
def test_views_of_smooth_images(tmp_path, reductions, height, width, wanted):
    """Sides that are no multiples; every step of augmentation."""
    path = write(tmp_path / 'a.jpg', smooth(height, width))
    for index in range(12):
        assert_close(*both(path, index, **SMALL))
    assert set(reductions) == wanted


@pytest.mark.parametrize(
    ('filters', 'least'),
    [('opencv', [1] * 3), ('antialiased', [1.75, 2.5, 2.5])],
)
def test_the_greatest_reduction_that_leaves_views_their_pixels(filters, least):
    """Against a plain loop over scales, views and sides, in fractions.

    ``least``: so many for one of the view, at 1/2, 1/4 and 1/8.
    """
    transform = MultiCrop(**(SMALL | dict(filters=filters)))
    sides, margins = [56] * 2 + [24] * 8, FILTERS[filters].margins
    chosen = []
    for index in range(300):
        height, width = np.random.default_rng(index).integers(60, 3000, 2)
        boxes = transform.crop_boxes(
            (height, width), transform.draw(SampleKey(index))
        )
        fitting = [1]
        for reduction, times in zip((2, 4, 8), least, strict=True):
            pixels = []
            for (top, left, h, w), side in zip(boxes, sides, strict=True):
                # Halves round up.
                ends = np.array([top, top + h, left, left + w]) / reduction
                ends = np.floor(ends + 0.5)
                height, width = ends[1] - ends[0], ends[3] - ends[2]
                pixels += [height - times * side, width - times * side]
            if min(pixels) >= 0:
                fitting.append(reduction)
        chosen.append(greatest_reduction(boxes, sides, margins))
        assert chosen[-1] == max(fitting)
        assert fitting == [1, 2, 4, 8][: len(fitting)]
    assert set(chosen) == {1, 2, 4, 8}


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_reduced_boxes_lie_in_the_reduced_image(reduction):
    for side in range(1, 40):
        last = -(-side // reduction)  # libjpeg rounds up
        top, left, height, width = reduced_box((0, 0, side, side), reduction)
        assert (top, left) == (0, 0)
        assert height == width <= last


def test_edges_of_crops(tmp_path):
    """Where color tells place, a view is off by half its pixel at most."""
    rows, columns = np.mgrid[:1024, :1024] / 4
    image = np.dstack([rows, columns, 0 * rows]).astype(np.uint8)
    path = write(tmp_path / 'a.jpg', image)
    for index in range(10):
        ours, full = both(path, index, **SMALL, **NO_COLOR)
        for view, other, (left, _, right, _, _) in zip(
            ours['img'], full['img'], ours['crops'], strict=True
        ):
            pixel = (right - left) / view.shape[-1] / 4  # in levels
            off = view[1].float().mean() - other[1].float().mean()
            assert abs(off) < pixel / 2 + 0.5


def test_no_reduction_is_bit_equal(tmp_path, reductions):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    path = write(tmp_path / 'a.jpg', image)
    for index in range(5):
        assert_same(*both(path, index, **SMALL))
    assert set(reductions) == {1}


@pytest.mark.parametrize('ending', ['png', 'bmp', 'tif', 'webp'])
def test_other_formats_are_decoded_in_full(tmp_path, reductions, ending):
    image = smooth(800, 900)
    path = write(tmp_path / f'a.{ending}', image)
    assert_same(*both(path, **SMALL))
    assert not reductions
    # By what it is, not by its ending.
    disguised = tmp_path / 'b.jpg'
    disguised.write_bytes((tmp_path / f'a.{ending}').read_bytes())
    assert_same(*both(str(disguised), **SMALL))


@pytest.mark.parametrize(
    ('mode', 'settings'),
    [
        ('L', {}),
        ('CMYK', {}),
        ('RGB', dict(progressive=True)),
        ('RGB', dict(subsampling='4:2:0')),
        *(
            ('RGB', dict(exif=b'Exif\0\0' + damaged))
            for damaged in (b'', b'MM\0*\xff\xff', bytes(range(99)))
        ),
    ],
)
def test_kinds_of_jpeg(tmp_path, reductions, mode, settings):
    image = Image.fromarray(smooth(800, 900)).convert(mode)
    image.save(tmp_path / 'a.jpg', quality=95, **settings)
    assert_close(*both(str(tmp_path / 'a.jpg'), **SMALL))
    assert reductions[0] > 1


# Orientation


@pytest.mark.parametrize('orientation', range(9))
def test_orientation(tmp_path, reductions, orientation):
    """OpenCV turns an image upright; its header has the size before that."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / 'a.jpg', smooth(600, 900), exif=exif)
    ours, full = both(path, **SMALL)
    on_its_side = orientation in (5, 6, 7, 8)
    assert ours['ori_shape'] == ((900, 600) if on_its_side else (600, 900))
    assert ours['ori_shape'] == full['ori_shape']
    assert_close(ours, full)
    assert len(reductions) == 1  # not once more
    assert reductions[0] > 1


def test_readers_that_disagree_about_the_orientation(tmp_path):
    """Pillow reads a tag of 4 bytes, OpenCV its first 2: 6 and 0."""
    entry = struct.pack('>HHII', 0x0112, 4, 1, 6)
    tiff = b'MM\0*' + struct.pack('>IH', 8, 1) + entry + struct.pack('>I', 0)
    path = write(tmp_path / 'a.jpg', smooth(600, 900), exif=b'Exif\0\0' + tiff)
    content = (tmp_path / 'a.jpg').read_bytes()
    assert jpeg_shape(read_header(BytesIO(content))) == (900, 600)
    assert cv2.imread(path).shape == (600, 900, 3)
    ours, full = both(path, **SMALL)
    ours['ori_shape'] = full['ori_shape']
    assert_same(ours, full)


# Unreadable files

PIPELINE = [
    dict(type='LoadImage', reduced=True),
    dict(type='MultiCrop', **SMALL),
    dict(type='PackInputs'),
]


def test_an_error_of_the_late_decode(tmp_path):
    """It names the file, which can be skipped.

    test_bad_files.py has what the header shows.
    """
    for i in range(3):
        write(tmp_path / f'{i}.jpg', smooth(600, 900))
    path = tmp_path / '1.jpg'
    # Its header is fine, but its tables are called comments.
    path.write_bytes(path.read_bytes().replace(b'\xff\xdb', b'\xff\xfe'))
    results = LoadImage(reduced=True)(dict(img_path=str(path)))
    assert isinstance(results['img'], EncodedImage)
    settings = dict(data_root=str(tmp_path), pipeline=PIPELINE)
    with pytest.raises(UnreadableImageError) as caught:
        ImageFiles(**settings)[1]
    assert str(path) in str(caught.value)
    assert "on_error='skip'" in str(caught.value)
    dataset = ImageFiles(on_error='skip', **settings)
    views, others = (dataset[SampleKey(i)]['inputs'] for i in (1, 2))
    assert all(map(torch.equal, views, others))
    assert dataset.num_unreadable == 1


def test_a_file_is_decoded_once_at_each_scale(tmp_path, reductions):
    path = write(tmp_path / 'a.jpg', smooth(600, 900))
    results = LoadImage(reduced=True)(dict(img_path=path))
    keys = [SampleKey(index) for index in range(4)]
    for settings in (SMALL, dict(filters='opencv')):
        crop = MultiCrop(**settings)
        made = [crop(dict(results, sample_idx=key)) for key in keys]
    assert len(reductions) == len(set(reductions)) < 8
    assert_same(made[3], make(path, True, 3, filters='opencv'))


# Settings


def test_another_way_of_decoding_is_refused():
    with pytest.raises(ValueError, match='reduced=True') as caught:
        LoadImage(reduced=True, color_type='grayscale', to_float32=True)
    assert 'color_type, to_float32' in str(caught.value)
    LoadImage(reduced=True, backend_args=dict(backend='local'))
