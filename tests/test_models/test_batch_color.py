# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Color operations in batch, against NumPy and plain loops."""

import colorsys
from itertools import permutations

import numpy as np
import pytest
import torch

from mmscfs.datasets.transforms.color import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    pack_colors,
)
from mmscfs.models.utils.batch_color import color_images

HALF = 0.501  # what rounding once may change
NO_BLUR, NO_SOLARIZE = 0, 256
FACTORS = (0, 0.6, 0.93, 1, 1.07, 1.4, 2)


def make_images(count, side=12):
    """Return uint8 images (V, 3, S, S) of any color."""
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def run(images, colors):
    """Return the colored images as float64."""
    given = torch.from_numpy(images).float()
    out = color_images(given, np.array(colors, np.float32))
    assert out is given
    assert out.dtype == torch.float32
    assert torch.equal(out, out.round().clamp(0, 255))
    return out.double().numpy()


def jitter(*steps):
    return pack_colors(steps, False, NO_BLUR, NO_SOLARIZE)


def turn(image, shift):
    """Turn the hue of an image (3, S, S), pixel by pixel."""
    out = np.empty_like(image)
    for place in np.ndindex(image.shape[1:]):
        blue, green, red = image[(slice(None), *place)] / 255
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        rgb = colorsys.hsv_to_rgb((h + shift) % 1, s, v)
        out[(slice(None), *place)] = np.array(rgb[::-1]) * 255
    return out


def apply(image, steps):
    """Apply jitter steps to one image (3, S, S) in float64."""
    image = image.astype(float)
    for operation, value in steps:
        if operation == HUE:
            image = turn(image, value)
            continue
        luma = np.tensordot([0.114, 0.587, 0.299], image, 1)
        other = {
            BRIGHTNESS: 0,
            CONTRAST: luma.mean(),
            SATURATION: luma,
        }[operation]
        image = np.clip(value * image + (1 - value) * other, 0, 255)
    return image


@pytest.mark.parametrize('operation', [BRIGHTNESS, CONTRAST, SATURATION, HUE])
def test_one_operation_of_each_images_own_value(operation):
    values = (-0.5, -0.1, 0, 0.03, 0.1) if operation == HUE else FACTORS
    images = make_images(len(values))
    images[:, :, 0] = images[:, :1, 0]  # a gray row has no hue
    out = run(images, [jitter((operation, value)) for value in values])
    for image, value, got in zip(images, values, out, strict=True):
        wanted = apply(image, [(operation, value)])
        assert np.abs(got - wanted).max() <= HALF


def test_each_image_goes_in_its_own_order():
    values = {BRIGHTNESS: 1.4, CONTRAST: 1.4, SATURATION: 1.2, HUE: 0.1}
    orders = [
        [(k, values[k]) for k in order] for order in permutations(values)
    ]
    images = np.broadcast_to(make_images(1), (len(orders), 3, 12, 12)).copy()
    out = run(images, [jitter(*steps) for steps in orders])
    for image, steps, got in zip(images, orders, out, strict=True):
        assert np.abs(got - apply(image, steps)).max() <= HALF
    # The order matters: they saturate at other times.
    assert len({got.tobytes() for got in out}) > 6


def test_gray_comes_after_the_jitter():
    images = make_images(2)
    steps = [(BRIGHTNESS, 1.4), (SATURATION, 1.2), (HUE, 0.1), (CONTRAST, 0.7)]
    rows = [
        pack_colors([], True, NO_BLUR, NO_SOLARIZE),
        pack_colors(steps, True, NO_BLUR, NO_SOLARIZE),
    ]
    out = run(images, rows)
    for image, got, taken in zip(images, out, ([], steps), strict=True):
        luma = np.tensordot([0.114, 0.587, 0.299], apply(image, taken), 1)
        assert np.abs(got - luma).max() <= HALF


@pytest.mark.parametrize('side', [9, 16])
def test_blur_is_a_gaussian_with_a_mirrored_border(side):
    sigmas = (0.1, 0.3, 0.5, 1, 1.37, 2)
    images = make_images(len(sigmas), side)
    rows = [pack_colors([], False, sigma, NO_SOLARIZE) for sigma in sigmas]
    out = run(images, rows)
    for image, sigma, got in zip(images, sigmas, out, strict=True):
        radius = round(6 * sigma + 1) // 2
        places = np.arange(-radius, radius + 1)
        weights = np.exp(-(places**2) / (2 * sigma**2))
        kernel = np.outer(weights, weights) / weights.sum() ** 2
        width = ((0, 0), (radius, radius), (radius, radius))
        padded = np.pad(image.astype(float), width, mode='reflect')
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, kernel.shape, (1, 2)
        )
        wanted = (windows * kernel).sum((3, 4))
        assert np.abs(got - wanted).max() <= HALF


def test_a_blur_wider_than_the_image_keeps_its_level():
    images = np.full((1, 3, 3, 3), 200, np.uint8)
    row = pack_colors([], False, 5, NO_SOLARIZE)
    assert (run(images, [row]) == 200).all()


def test_solarize_inverts_from_the_threshold_on():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    thresholds = (0, 1, 100, 128, 255, 256)
    images = np.broadcast_to(values, (len(thresholds), 3, 16, 16)).copy()
    rows = [pack_colors([], False, NO_BLUR, t) for t in thresholds]
    for threshold, got in zip(thresholds, run(images, rows), strict=True):
        wanted = [v if v < threshold else 255 - v for v in range(256)]
        assert got.reshape(3, 256).tolist() == [wanted] * 3


def test_solarize_follows_the_blur_and_its_rounding():
    """Half a level under the threshold is rounded to it, and inverted."""
    images = np.full((1, 3, 4, 4), 100, np.uint8)
    row = pack_colors([(BRIGHTNESS, 0.996)], False, 1, 100)  # makes 99.6
    assert (run(images, [row]) == 155).all()


def test_nothing_is_asked_of_the_device():
    """Tensors of the meta device have no values to wait for."""
    steps = [(BRIGHTNESS, 1.4), (CONTRAST, 0.6), (SATURATION, 1.2), (HUE, 0.1)]
    rows = [pack_colors(steps, True, 1.5, 128), jitter(*steps[::-1]), jitter()]
    images = torch.empty(3, 3, 16, 16, device='meta')
    out = color_images(images, np.array(rows, np.float32))
    assert out.shape == images.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        out.max().item()
