# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The color operations of MultiCrop, beside torchvision and Pillow."""

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from crop_images import noise, photo
from PIL import Image

from mmscfs.datasets.transforms.color import PendingColor, solarize

PICTURES = pytest.mark.parametrize(
    'image', [photo(56, 80), noise(48, 48)], ids=['photo', 'noise']
)
OPERATIONS = {
    'brightness': (0, 0.6, 0.93, 1, 1.07, 1.4, 2),
    'contrast': (0, 0.6, 0.93, 1, 1.07, 1.4, 2),
    'saturation': (0, 0.8, 0.93, 1, 1.07, 1.2, 2),
    'hue': (-0.5, -0.1, -0.03, 0, 0.03, 0.1, 0.5),
}
AFFINE = ('brightness', 'contrast', 'saturation')


def to_tensor(image):
    """Return a BGR image as an RGB tensor."""
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)


def ours(image, steps):
    """Apply (name, value) steps, fused."""
    pending = PendingColor(image)
    for name, value in steps:
        getattr(pending, name)(value)
    return pending.flush().astype(int)


def torchvisions(image, steps):
    """Apply the steps with torchvision, to BGR."""
    image = to_tensor(image)
    for name, value in steps:
        image = getattr(tvf, f'adjust_{name}')(image, value)
    return image.permute(1, 2, 0).numpy()[..., ::-1].astype(int)


def exact(image, steps):
    """Apply affine steps in float64, without rounding."""
    image = image.astype(float)
    for name, factor in steps:
        luma = image @ [0.114, 0.587, 0.299]
        other = {
            'brightness': 0,
            'contrast': luma.mean(),
            'saturation': luma[..., None],
        }[name]
        image = np.clip(factor * image + (1 - factor) * other, 0, 255)
    return image


def draw_steps(names, seed, count=40):
    """Return random sequences of the default jitter."""
    generator = np.random.default_rng(seed)
    widths = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for _ in range(count):
        yield [
            (
                str(name),
                (name != 'hue') + generator.uniform(-1, 1) * widths[name],
            )
            for name in generator.permutation(names)
        ]


@PICTURES
@pytest.mark.parametrize('name', AFFINE)
def test_affine_operations_agree_with_torchvision(image, name):
    """They truncate; OpenCV rounds, with coefficients of 10 bits."""
    for factor in OPERATIONS[name]:
        out = ours(image, [(name, factor)])
        assert np.abs(out - exact(image, [(name, factor)])).max() <= 0.9
        other = torchvisions(image, [(name, factor)])
        assert np.abs(out - other).max() <= 1


@PICTURES
def test_hue_agrees_with_torchvision(image):
    """torchvision's HSV is float, ours has 8 bits."""
    for shift in OPERATIONS['hue']:
        steps = [('hue', shift)]
        differences = np.abs(ours(image, steps) - torchvisions(image, steps))
        assert differences.mean() <= 1
        assert differences.max() <= 10


@pytest.mark.parametrize('steps', [-128, -26, -13, -1, 1, 13, 26, 64])
def test_hue_turns_without_bias(steps):
    """8-bit hue, in and out, is off by half of a 256th of the circle each.

    Shifts are 256ths, which need no rounding. The sum of the two and what the
    rounding of colors adds is at most 1.4, and 0 on average.
    """
    places = np.arange(0, 1, 1 / 1536)
    colors = [colorsys.hsv_to_rgb(place, 1, 1) for place in places]
    image = (255 * np.array([colors])[..., ::-1]).round().astype(np.uint8)
    turned = ours(image, [('hue', steps / 256)])[0, :, ::-1] / 255
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in turned])
    errors = (hues - places - steps / 256 + 0.5) % 1 - 0.5
    assert abs(errors.mean() * 256) <= 0.1
    assert np.abs(errors * 256).max() <= 1.4


@PICTURES
def test_grey_agrees_with_pillow(image):
    rgb = Image.fromarray(image[..., ::-1].copy())
    wanted = np.asarray(tvf.rgb_to_grayscale(rgb)).astype(int)
    grey = PendingColor(image).grey()
    assert grey.shape == image.shape[:2]
    assert np.abs(grey - wanted).max() <= 1


@PICTURES
@pytest.mark.parametrize('threshold', [0, 1, 100, 128, 200, 255, 256])
def test_solarize_is_pillows(image, threshold):
    wanted = tvf.solarize(Image.fromarray(image), threshold)
    assert np.array_equal(solarize(image, threshold), np.asarray(wanted))
    # A grey view has one channel.
    grey = image[..., 0].copy()
    wanted = tvf.solarize(Image.fromarray(grey), threshold)
    assert np.array_equal(solarize(grey, threshold), np.asarray(wanted))


@PICTURES
def test_sequences_agree_with_exact_arithmetic(image):
    for steps in draw_steps(AFFINE, 1):
        out = ours(image, steps)
        differences = np.abs(out - exact(image, steps))
        assert differences.max() <= 2.5
        assert differences.mean() <= 0.5
        grey = PendingColor(image)
        for name, value in steps:
            getattr(grey, name)(value)
        luma = exact(image, steps) @ [0.114, 0.587, 0.299]
        assert np.abs(grey.grey() - luma).max() <= 2.5
