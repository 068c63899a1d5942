# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Images of more than 8 bits, and of any number of channels."""

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmscfs.datasets import LoadImage, MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.loading import (
    UnreadableImageError,
    loader_like,
)
from mmscfs.datasets.transforms.values import ValueRange
from mmscfs.models.utils import MultiCropDataPreprocessor

SHORT, LONG = 3, 4  # types of a TIFF's numbers
KINDS = {'u': 1, 'i': 2, 'f': 3}
NO_COLOR = dict(saturation=0, hue=0, grey_prob=0)


def tiff(image: np.ndarray, by_plane: bool = False) -> bytes:
    """Return an uncompressed TIFF of an image (H, W, C)."""
    height, width, channels = image.shape
    data = (np.moveaxis(image, -1, 0) if by_plane else image).tobytes()
    planes = channels if by_plane else 1
    size = len(data) // planes
    bits, kind = 8 * image.dtype.itemsize, KINDS[image.dtype.kind]
    tags = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [bits] * channels),
        (259, SHORT, [1]),
        (262, SHORT, [2 if channels in (3, 4) else 1]),
        (273, LONG, [0] * planes),
        (277, SHORT, [channels]),
        (278, LONG, [height]),
        (279, LONG, [size] * planes),
        (284, SHORT, [1 + by_plane]),
        (338, SHORT, [0] * (channels - (3 if channels in (3, 4) else 1))),
        (339, SHORT, [kind] * channels),
    ]
    tags = [tag for tag in tags if tag[2]]
    lists = {t: struct.pack(f'<{len(v)}{"HI"[k - 3]}', *v) for t, k, v in tags}
    long = 8 + 2 + 12 * len(tags) + 4
    start = long + sum(len(v) for v in lists.values() if len(v) > 4)
    offsets = [start + i * size for i in range(planes)]
    lists[273] = struct.pack(f'<{planes}I', *offsets)
    head, rest = b'', b''
    for tag, kind, values in tags:
        packed = lists[tag]
        if len(packed) > 4:
            rest, packed = rest + packed, struct.pack('<I', long + len(rest))
        head += struct.pack('<HHI', tag, kind, len(values)) + packed.ljust(
            4, b'\0'
        )
    count = struct.pack('<H', len(tags))
    return b'II*\0\x08\0\0\0' + count + head + bytes(4) + rest + data


def load(path, content=None, **settings):
    """Return what LoadImage makes of a file."""
    if content is not None:
        path.write_bytes(content)
    return LoadImage(**settings)(dict(img_path=str(path)))['img']


def deep(*shape, kind=np.uint16, seed=0):
    values = np.random.default_rng(seed).random(shape) * 4095
    return values.astype(kind)


# What the values become


@pytest.mark.parametrize(
    ('setting', 'values', 'wanted'),
    [
        # 0, 1/5, just over a half, the end, beyond.
        ((0, 4095), [0, 819, 2056, 4095, 60000], [0, 51, 128, 255, 255]),
        ((100, 355), [0, 100, 101, 355, 356], [0, 0, 1, 255, 255]),
        ((-1, 1), [-2.0, -1.0, 0.0, 0.5, np.inf], [0, 0, 128, 191, 255]),
        ((0, 10), [np.nan, -np.inf, 5.0, 9.9, 10.0], [0, 0, 128, 252, 255]),
        # 0, 1, ..., 100: the 1st percentile is 1 and the 99th 99.
        ('percentiles', np.arange(101), [0, 0, 3, 5, 8]),
        (dict(percentiles=(0, 50)), np.arange(101), [0, 5, 10, 15, 20]),
        # Nearly all are equal: what is above them is white.
        ('percentiles', np.array([0] * 998 + [7, 9]), [0, 0, 0, 0, 0]),
        ('percentiles', np.full(9, 1234), [0] * 5),
    ],
)
def test_values_by_hand(setting, values, wanted):
    values = np.array(values)[None]
    mapped = ValueRange(setting)(values)
    assert mapped.dtype == np.uint8
    assert mapped[0, :5].tolist() == wanted
    if values.shape[1] == 1000:
        assert mapped[0, -3:].tolist() == [0, 255, 255]


def test_bands_have_ranges_of_their_own():
    image = np.stack([np.arange(101), 10 * np.arange(101)], -1)[None]
    ends = dict(percentiles=(0, 100))
    together = ValueRange(ends)(image)[0]
    assert together[100].tolist() == [26, 255]
    apart = ValueRange(dict(ends, per_band=True))(image)[0]
    assert apart[100].tolist() == [255, 255]
    windows = ValueRange([(0, 50), (0, 2000)])(image)[0]
    assert windows[100].tolist() == [255, 128]
    with pytest.raises(ValueError, match='2 windows, but the image has 4'):
        ValueRange([(0, 1), (0, 1)])(np.zeros((2, 2, 4)))


@pytest.mark.parametrize(
    'value',
    [
        *('minmax', (5, 5), (0, float('inf')), [(0, 1), 3], (True, 2)),
        *(dict(percentiles=(1, 101)), dict(percentile=(1, 99))),
        dict(per_band='yes'),
    ],
)
def test_bad_settings_are_named(value):
    with pytest.raises(ValueError, match='LoadImage: value_range=') as caught:
        LoadImage(value_range=value)
    assert repr(value) in str(caught.value)
    assert "'percentiles', a window (low, high)" in str(caught.value)


# Files

GRAY, COLOR = deep(20, 30), deep(20, 30, 3)
FOUR = deep(20, 30, 4)


def png(image):
    return cv2.imencode('.png', image)[1].tobytes()


FILES = {
    'png': png(GRAY),
    'tif': cv2.imencode('.tif', GRAY)[1].tobytes(),
    'plain tif': tiff(GRAY[..., None]),
    'signed tif': tiff(GRAY[..., None].astype(np.int16)),
    'float tif': tiff(GRAY[..., None].astype(np.float32)),
    'double tif': tiff(GRAY[..., None].astype(np.float64)),
}


@pytest.mark.parametrize('name', FILES)
def test_gray_files(tmp_path, name):
    """As three equal channels; without a range it is an error."""
    wanted = np.rint(GRAY / 4095 * 255)
    path = tmp_path / 'a'
    for settings in ({}, dict(color_type='unchanged')):
        image = load(path, FILES[name], value_range=(0, 4095), **settings)
        assert image.dtype == np.uint8
        assert np.array_equal(image, np.dstack([wanted] * 3))
        with pytest.raises(UnreadableImageError, match='unasked') as caught:
            load(path, **settings)
        message = str(caught.value)
        assert str(GRAY.min()) in message
        assert str(GRAY.max()) in message
        assert 'train_dataloader.dataset.pipeline.0.value_range' in message


@pytest.mark.parametrize(
    ('content', 'source'),
    [
        (png(COLOR[..., ::-1]), COLOR),
        (png(FOUR[..., [2, 1, 0, 3]]), FOUR),
        (tiff(COLOR), COLOR),
        (tiff(FOUR), FOUR),
        (tiff(COLOR.astype(np.float32)), COLOR),
    ],
)
def test_color_files(tmp_path, content, source):
    """BGR, windows in the file's order; a fourth channel is left out."""
    windows = [(0, 4095), (0, 1000), (1000, 3000)]
    image = load(tmp_path / 'a', content, value_range=windows)
    assert image.shape == (20, 30, 3)
    for i, (low, high) in enumerate(windows):
        shares = ((source[..., i] - float(low)) / (high - low)).clip(0, 1)
        # Halves may be rounded either way.
        assert np.abs(image[..., 2 - i] - 255 * shares).max() <= 0.51


@pytest.mark.parametrize('bands', [3, 5])
@pytest.mark.parametrize('kind', [np.uint8, '>u2'])
def test_arrays(tmp_path, bands, kind):
    image = deep(20, 30, bands, kind=np.uint8).astype(kind)
    path = tmp_path / 'a.npy'
    order = [2, 1, 0] if bands == 3 else slice(None)
    for saved in (image, np.moveaxis(image, -1, 0)):
        np.save(path, saved)
        loaded = load(path, value_range=(0, 255))
        assert np.array_equal(loaded, image[..., order])
    if kind is np.uint8:
        assert np.array_equal(load(path), image[..., order])
    np.save(path, image[..., 0])
    assert load(path, value_range=(0, 255)).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ('array', 'words'),
    [
        (np.zeros((2, 3, 4, 5)), 'not \\(height, width\\)'),
        (np.zeros((0, 4)), 'shape \\(0, 4\\)'),
        (np.zeros((4, 4), complex), 'complex128'),
        (np.zeros((4, 4), bool), 'bool'),
        (np.full((4, 4), np.nan), 'nothing but NaN'),
        (np.zeros((30, 30)), "over LoadImage's max_pixels"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, words):
    path = tmp_path / 'a.npy'
    np.save(path, array)
    with pytest.raises(UnreadableImageError, match=words):
        load(path, value_range='percentiles', max_pixels=800)


@pytest.mark.parametrize(
    'content',
    [
        tiff(deep(20, 30, 5)),
        tiff(deep(20, 30, 2)),  # OpenCV would cut it to 8 bits
        tiff(COLOR, by_plane=True),  # and leave memory unset here
        tiff(deep(20, 30, 1, kind=np.uint32)),
    ],
)
def test_what_opencv_does_not_read_rightly(tmp_path, content):
    for settings in ({}, dict(color_type='unchanged')):
        with pytest.raises(UnreadableImageError, match='tifffile') as caught:
            load(tmp_path / 'a', content, value_range=(0, 4095), **settings)
        assert '.npy' in str(caught.value)


@pytest.mark.parametrize('image', [GRAY, COLOR])
def test_other_decoders_cut_nothing(tmp_path, image):
    with pytest.raises(UnreadableImageError, match="set 'cv2'"):
        load(
            tmp_path / 'a',
            png(image),
            value_range='percentiles',
            imdecode_backend='pillow',
        )


def test_grayscale(tmp_path):
    rgb = np.full((4, 5, 3), [200, 100, 50], np.uint8)
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    image = load(tmp_path / 'a.png', color_type='grayscale')
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert np.array_equal(image, np.full((4, 5, 3), 124))


def test_loader_like_a_pipeline():
    steps = [
        dict(type='LoadAnnotations'),
        dict(type='mmpretrain.LoadImage', value_range=(0, 9), max_pixels=5),
    ]
    assert loader_like(steps).value_range == (0, 9)
    assert loader_like(steps[:1], max_pixels=7).max_pixels == 7
    theirs = dict(type='LoadImageFromFile', color_type='grayscale')
    assert loader_like([theirs]).color_type == 'grayscale'
    unchanged = dict(theirs, color_type='unchanged')
    assert loader_like([unchanged]).color_type == 'color'


# Views


def crops(image, on_device=False, **settings):
    """Return the views of an image as the network gets them."""
    settings = dict(global_size=24, local_size=16, num_local=4) | settings
    crop = MultiCrop(color_on_device=on_device, **settings)
    views = []
    for index in range(12):
        done = crop(dict(img=image, sample_idx=SampleKey(index)))
        batch = dict(inputs=[view[None] for view in done['img']])
        if on_device:
            from mmpretrain.structures import DataSample

            batch['data_samples'] = [
                DataSample(metainfo=dict(colors=done['colors']))
            ]
        views += MultiCropDataPreprocessor()(batch)['inputs']
    return [view[0] for view in views]


@pytest.mark.parametrize('bands', [2, 9])
def test_each_band_is_cropped_and_blurred_as_an_image_is(bands):
    """Without jitter, which looks at all bands."""
    image = deep(90, 70, bands, kind=np.uint8)
    settings = dict(NO_COLOR, jitter_prob=0, solarize_prob=(0.5, 0.5, 0.5))
    views = crops(image, **settings)
    for i in range(bands):
        alone = crops(image[..., i], **settings)
        for view, gray in zip(views, alone, strict=True):
            assert len(view) == bands
            assert len(gray) == 3
            assert (view[i] - gray[0]).abs().max() <= 1


def test_jitter_of_bands_by_hand():
    """A contrast starts from the mean of all bands."""
    image = np.full((30, 30, 5), [40, 50, 60, 70, 180], np.uint8)
    settings = dict(
        NO_COLOR, jitter_prob=1, blur_prob=(0, 0, 0), solarize_prob=(0, 0, 0)
    )
    # Their mean is 80, from which each is as far as before, times a factor.
    for view in crops(image, brightness=0, contrast=0.4, **settings):
        own = view[:, 0, 0].numpy()
        factor = (own[4] - own[0]) / 140
        assert 0.58 < factor < 1.42
        assert np.abs(own - (80 + factor * (image[0, 0] - 80.0))).max() <= 1.2
    for view in crops(image, brightness=0.4, contrast=0, **settings):
        own = view[:, 0, 0].numpy()
        assert np.abs(own - own[4] / 180 * image[0, 0]).max() <= 1


def test_colors_of_bands_on_the_device():
    image = cv2.GaussianBlur(deep(60, 70, 5, kind=np.uint8), (0, 0), 4)
    pairs = zip(
        crops(image, **NO_COLOR), crops(image, True, **NO_COLOR), strict=True
    )
    off = torch.cat([(a - b).abs().flatten() for a, b in pairs])
    assert off.mean() <= 0.3
    assert off.max() <= 2


@pytest.mark.parametrize('bands', [2, 5])
def test_settings_for_rgb_are_refused_by_name(bands):
    image = np.zeros((40, 40, bands), np.uint8)
    with pytest.raises(ValueError, match=f'of {bands} channels') as caught:
        crops(image)
    assert 'set saturation, hue, grey_prob of multi_crop' in str(caught.value)
    with pytest.raises(ValueError, match='set hue of multi_crop'):
        crops(image, saturation=0, grey_prob=0)
    assert len(crops(image, **NO_COLOR)[0]) == bands


def test_mean_and_deviation_of_each_channel():
    views = [torch.full((2, 5, 8, 8), 100, dtype=torch.uint8)] * 2
    mean, std = [0.0, 50.0, 100.0, 150.0, 200.0], [1.0, 2.0, 4.0, 5.0, 10.0]
    made = MultiCropDataPreprocessor(mean, std)(dict(inputs=views))['inputs']
    assert made[1][1, :, 3, 3].tolist() == [100, 25, 0, -10, -10]
    one = MultiCropDataPreprocessor([50], [2])(dict(inputs=views))['inputs']
    assert one[0][0, :, 0, 0].tolist() == [25] * 5
