# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How crops are resized and blurred: DINO's filters, or OpenCV's own."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from .values import resize_bands


class Filters(NamedTuple):
    """One way to resize and blur uint8 images (H, W, C)."""

    #: Resizes a crop (H, W, C) to a height and a width, px.
    resize: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    #: Blurs a view, (S, S, C) or (S, S), by a standard deviation, px.
    blur: Callable[[np.ndarray, float], np.ndarray]
    #: Corrects an image that was decoded at a scale of 1 / reduction.
    restore: Callable[[np.ndarray, int], np.ndarray]
    #: JPEG reductions, greatest first, and how many pixels a crop must have
    #: for each of its view after that, in both directions.
    margins: Mapping[int, float]


def resize_antialiased(crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as Pillow's bicubic, within 0.2 levels in the mean.

    The cubic kernel is stretched by the scale wherever an image shrinks, so
    that it averages what it would otherwise skip. Pillow resizes rows first,
    then columns, with 8 bits between. Here columns are first, which is faster,
    as fewer rows are left for the second, which takes twice the time.
    """
    # PyTorch resizes uint8 as OpenCV has it in memory, channels last, without
    # a copy if the batch's stride says so, too: view sets it, [None] does not.
    pixels = torch.from_numpy(np.ascontiguousarray(crop))
    batch = pixels.view(1, *crop.shape).permute(0, 3, 1, 2)
    for shape in ((size[0], crop.shape[1]), size):
        batch = interpolate(batch, shape, mode='bicubic', antialias=True)
    return np.ascontiguousarray(batch[0].permute(1, 2, 0).numpy())


def blur_exactly(view: np.ndarray, sigma: float) -> np.ndarray:
    """Blur as far as three standard deviations, rounded once.

    In half the time of ``cv2.GaussianBlur``, which cuts the weights to 8
    bits.
    """
    size = round(6 * sigma + 1) | 1
    kernel = cv2.getGaussianKernel(size, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(view, -1, kernel, kernel)


def sharpen(image: np.ndarray, reduction: int) -> np.ndarray:
    """Make up for what a reduced decode takes from a view's frequencies.

    Its pixels are means of n x n, which weaken the frequency f, in cycles of
    these pixels, by 1 - (1 - 1 / n^2) (pi f)^2 / 6 + ... The weights here
    strengthen it by as much, up to that order.
    """
    if reduction == 1:
        return image
    side = (1 - reduction**-2) / 24
    kernel = np.array([-side, 1 + 2 * side, -side], np.float32)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


def resize_aliased(crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by OpenCV: bicubic, by area to half or less.

    Its bicubic skips pixels where an image shrinks.
    """
    shrinks = min(crop.shape[:2]) >= 2 * min(size)
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return resize_bands(crop, size[::-1], how)


def blur_roughly(view: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by OpenCV, which works in 8 bits: off by up to 1.5 levels."""
    return cv2.GaussianBlur(view, (0, 0), sigma)


#: By the names that ``MultiCrop(filters=...)`` takes.
FILTERS = {
    # libjpeg's own filter takes the place of a part of the resizing: with
    # fewer pixels left to average, views would differ from Pillow's by more
    # than half a level in the mean, or 2% of their gradients' energy.
    'antialiased': Filters(
        resize=resize_antialiased,
        blur=blur_exactly,
        restore=sharpen,
        margins={8: 2.5, 4: 2.5, 2: 1.75},
    ),
    # No view is enlarged.
    'opencv': Filters(
        resize=resize_aliased,
        blur=blur_roughly,
        restore=lambda image, _: image,
        margins={8: 1, 4: 1, 2: 1},
    ),
}
