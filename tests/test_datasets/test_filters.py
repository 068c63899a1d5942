# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""MultiCrop's filters beside Pillow's, which DINO has."""

import cv2
import numpy as np
import pytest
from crop_images import NO_COLOR, columns_first, noise
from PIL import Image
from sklearn.datasets import load_sample_image

from mmscfs.datasets import LoadImage, MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms import loading
from mmscfs.datasets.transforms.filters import FILTERS
from mmscfs.datasets.transforms.loading import reduced_box

IMAGES = 100  # of 10 crops each


def photographs():
    return [load_sample_image(f'{n}.jpg') for n in ('china', 'flower')]


def zone_plate():
    """Rings whose frequency grows outward, up to that of the pixels."""
    rows, columns = np.mgrid[:480, :640] - np.array([[[240]], [[320]]])
    rings = np.cos(np.pi * (rows**2 + columns**2) / 800)
    return [np.repeat(127.5 + 127.5 * rings[..., None], 3, 2).astype('uint8')]


def energy(view):
    """Return the sum of the squared gradients of a view (S, S, C)."""
    return sum(np.square(np.diff(view, axis=a)).sum() for a in (0, 1))


def beside_pillow(images, seen=(), **settings):
    """Compare the views of crops with those that Pillow makes of them.

    Args:
        images (list): What to load, arrays or paths of JPEG files.
        seen (list): Scales of all decodes so far. Defaults to none.
        **settings: Those of MultiCrop.

    Returns:
        tuple: Mean and greatest difference, levels, and the ratio of the
        gradients' energies, of ours to Pillow's.
    """
    crop = MultiCrop(**settings, flip_prob=0, **NO_COLOR)
    means, largest, energies = [], [], []
    for index in range(IMAGES):
        image = images[index % len(images)]
        results = dict(sample_idx=SampleKey(index))
        if isinstance(image, str):
            results = LoadImage(reduced=True)(dict(results, img_path=image))
            image = cv2.imread(image)
        else:
            results['img'] = image
        results = crop(results)
        reduction = seen[-1] if seen else 1
        for view, box in zip(results['img'], results['crops'], strict=True):
            left, top, right, bottom = box[:4].astype(int).tolist()
            top, left, height, width = (
                edge * reduction
                for edge in reduced_box(
                    (top, left, bottom - top, right - left), reduction
                )
            )
            part = image[top : top + height, left : left + width]
            side = view.shape[-1]
            wanted = Image.fromarray(part).resize((side, side), Image.BICUBIC)
            wanted = np.asarray(wanted, float)
            ours = view.permute(1, 2, 0).numpy().astype(float)
            off = np.abs(ours - wanted)
            means.append(off.mean())
            largest.append(off.max())
            energies.append((energy(ours), energy(wanted)))
    ours, wanted = np.sum(energies, 0)
    return np.mean(means), np.max(largest), ours / wanted


@pytest.mark.parametrize(
    ('make', 'sides'),
    [
        (photographs, (224, 96)),
        (photographs, (72, 32)),
        (zone_plate, (72, 32)),
    ],
)
def test_antialiased_crops_are_pillows(make, sides):
    """1,000 crops, enlarged, and shrunk up to nine times.

    Ours resizes columns before rows, and rounds between the two.
    """
    mean, largest, ratio = beside_pillow(
        make(), global_size=sides[0], local_size=sides[1]
    )
    assert largest <= 10
    assert mean < 0.2
    assert abs(ratio - 1) < 0.001


def test_opencvs_filter_is_another():
    mean, _, ratio = beside_pillow(zone_plate(), filters='opencv')
    assert mean > 1
    assert ratio > 1.05


@pytest.mark.parametrize('make', [photographs, zone_plate])
@pytest.mark.parametrize(
    ('sides', 'reduction'), [((64, 28), 2), ((22, 10), 4)]
)
def test_jpeg_files_that_are_decoded_smaller(
    tmp_path, monkeypatch, make, sides, reduction
):
    """Half a level in the mean, and 2% of the gradients' energy."""
    seen, decode = [], loading.decode

    def spy(content, reduction=1):
        seen.append(reduction)
        return decode(content, reduction)

    monkeypatch.setattr(loading, 'decode', spy)
    paths = []
    for number, image in enumerate(make()):
        paths.append(str(tmp_path / f'{number}.jpg'))
        rows = image.shape[0] // 8 * 8
        Image.fromarray(image[:rows]).save(paths[-1], quality=95)
    mean, _, ratio = beside_pillow(
        paths, seen, global_size=sides[0], local_size=sides[1]
    )
    assert seen.count(reduction) > IMAGES / 2
    assert mean <= 0.5
    assert abs(ratio - 1) <= 0.02


@pytest.mark.parametrize('channels', [1, 2, 4, 5])
def test_channels_are_resized_alike(channels):
    image = np.dstack([noise(50, 70)] * 2)[..., :channels]
    view = FILTERS['antialiased'].resize(image, (31, 29))
    assert view.shape == (31, 29, channels)
    for i in range(channels):
        band = Image.fromarray(np.ascontiguousarray(image[..., i]))
        wanted = np.asarray(columns_first(band, 29, 31), int)
        assert np.abs(view[..., i] - wanted).max() <= 1


@pytest.mark.parametrize(
    ('name', 'most'), [('antialiased', 0.6), ('opencv', 2)]
)
@pytest.mark.parametrize(('sigma', 'radius'), [(0.1, 1), (0.8, 3), (2.0, 6)])
def test_blur(name, most, sigma, radius):
    """Against a sum over windows; the border is mirrored at its pixel."""
    image = noise(40, 30)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    around = (radius, radius)
    padded = np.pad(image, (around, around, (0, 0)), mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, kernel.shape, axis=(0, 1)
    )
    wanted = (windows * kernel).sum((-1, -2))
    view = FILTERS[name].blur(image, sigma)
    assert np.abs(view - wanted).max() <= most
    gray = FILTERS[name].blur(np.ascontiguousarray(image[..., 0]), sigma)
    assert np.array_equal(gray, view[..., 0])


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_sharpening_restores_what_means_weaken(reduction):
    """Waves of at least 6.5 pixels of the reduced image, to 1%."""
    for period in (240 / 37, 240 / 31, 240 / 11):
        columns = (np.arange(240 * reduction) + 0.5) / reduction
        wave = 127.5 + 100 * np.cos(2 * np.pi * columns / period)
        means = np.rint(wave.reshape(240, reduction).mean(1))
        image = np.tile(means.astype(np.uint8)[:, None], (9, 1, 3))
        view = FILTERS['antialiased'].restore(image, reduction)
        place = np.exp(2j * np.pi * (np.arange(240) + 0.5) / period)
        strengths = [2 * (i[4, :, 0] * place).mean() for i in (image, view)]
        assert abs(strengths[1] - 100) < 1
        assert period > 20 or strengths[0].real < 98.5
        same = FILTERS['opencv'].restore(image, reduction)
        assert same is FILTERS['antialiased'].restore(same, 1) is image
