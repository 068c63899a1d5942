# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Color jitter, gray, blur and solarizing of many images in one batch.

Which image takes which operation is decided on the host, where the numbers
come from: the device is handed indices and never asked for an answer.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mmscfs.datasets.transforms.color import (
    CONTRAST,
    HUE,
    LUMA_BGR,
    NO_SOLARIZE,
    NUM_OPERATIONS,
    SATURATION,
)


@torch.no_grad()
def color_images(images: Tensor, colors: np.ndarray) -> Tensor:
    """Do to each image what its numbers say, in place.

    Equals the uint8 operations of :class:`MultiCrop`, with one rounding, at
    the end, where those round after most steps.

    Args:
        images (Tensor): fp32 images (V, C, S, S) of values in [0, 255], BGR
            if C is 3; others have no hue to turn and no saturation.
        colors (np.ndarray): float32 (V, NUM_COLORS), see :func:`pack_colors`.

    Returns:
        Tensor: ``images``, of whole values in [0, 255].
    """
    operations = colors[:, :NUM_OPERATIONS]
    values = colors[:, NUM_OPERATIONS : 2 * NUM_OPERATIONS]
    sigmas, thresholds = colors[:, -2], colors[:, -1]
    for operation, value in zip(operations.T, values.T, strict=True):
        turns = (operation == HUE) & (value != 0)
        _update(images, turns, _turn_hue, value)
        changes = (operation != HUE) & (value != 1)
        _update(images, changes, _blend, _blend_shares(operation, value))
    # As OpenCV for 8-bit images: as far as three standard deviations.
    radii = np.rint(6 * sigmas + 1).astype(int) // 2
    kernels = np.stack([sigmas, radii], axis=1)
    _update(images, sigmas > 0, _blur, kernels)
    images.round_()
    _update(images, thresholds < NO_SOLARIZE, _solarize, thresholds)
    return images


def _upload(numbers: np.ndarray, device: torch.device) -> Tensor:
    host = torch.from_numpy(numbers)
    if device.type == 'cuda':  # from pageable memory, the copy would wait
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def _update(
    images: Tensor,
    chosen: np.ndarray,
    function: Callable[[Tensor, Tensor], Tensor],
    numbers: np.ndarray,
) -> None:
    """Replace the chosen images by a function of them and their numbers.

    Args:
        images (Tensor): (V, C, S, S).
        chosen (np.ndarray): bool (V,).
        function (Callable): Of images (M, C, S, S) and numbers (M, ...).
        numbers (np.ndarray): (V, ...).
    """
    if not chosen.any():
        return
    index = _upload(np.flatnonzero(chosen), images.device)
    given = _upload(numbers[chosen].astype(np.float32), images.device)
    images.index_copy_(0, index, function(images[index], given))


def _blend_shares(operation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return each image's shares of itself, its luma and its mean luma.

    A factor f makes f x + (1 - f) y of a pixel x, where y is 0 (brightness),
    the mean luma (contrast) or the pixel's luma (saturation).

    Args:
        operation (np.ndarray): (V,); the shares for HUE mean nothing.
        value (np.ndarray): The factors (V,).

    Returns:
        np.ndarray: (V, 3).
    """
    rest = 1 - value
    of_luma, of_mean = (operation == k for k in (SATURATION, CONTRAST))
    return np.stack([value, of_luma * rest, of_mean * rest], axis=1)


def _blend(images: Tensor, shares: Tensor) -> Tensor:
    if images.shape[1] == 3:
        blue, green, red = images.split(1, dim=1)
        luma = blue * LUMA_BGR[0]
        luma.add_(green, alpha=LUMA_BGR[1]).add_(red, alpha=LUMA_BGR[2])
    else:
        luma = images.mean(1, keepdim=True)
    own, of_luma, of_mean = shares[..., None, None, None].unbind(1)
    offset = of_mean * luma.mean((2, 3), keepdim=True) + of_luma * luma
    return torch.addcmul(offset, own, images).clamp_(0, 255)


def _turn_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by shifts (M,) of a full circle.

    Value and chroma of HSV stay. A channel is the value, less the chroma
    times a trapezium of its distance to the hue, in sixths of the circle.
    """
    blue, green, red = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    hue = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red, red - green),
    )
    hue /= chroma.clamp(min=1e-6)  # of a gray pixel, 0
    hue += torch.where(value == red, 0, torch.where(value == green, 2, 4))
    hue += 6 * shift[:, None, None]
    # Where blue, green and red begin to fall: 1, 3 and 5 sixths.
    places = torch.arange(1, 6, 2, device=images.device)[:, None, None]
    places = (hue[:, None] + places).remainder_(6)
    falls = torch.minimum(places, 4 - places).clamp_(0, 1)
    return value[:, None] - chroma[:, None] * falls


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Blur by standard deviations and radii (M, 2), in px.

    The border is a mirror whose line is the outermost pixel. The weights of
    a side of S pixels, and of its reflections, make one banded S x S matrix
    for each image, which multiplies it from the left and the right.
    """
    side = images.shape[-1]
    sigma, radius = kernels[:, :, None].unbind(1)
    distance = torch.arange(2 - 2 * side, 2 * side - 1, device=images.device)
    weights = torch.exp(distance.square() / (-2 * sigma.square()))
    weights *= distance.abs() <= radius.clamp(max=side - 1)
    weights /= weights.sum(dim=1, keepdim=True)
    # Row i: the weights for i of the pixels 1 - S, ..., 2 S - 2.
    rows = weights.unfold(1, 3 * side - 2, 1).flip(1)
    before, matrix, after = rows.split([side - 1, side, side - 1], dim=2)
    matrix[..., 1:] += before.flip(2)
    matrix[..., :-1] += after.flip(2)
    matrix = matrix[:, None]
    return matrix @ images @ matrix.mT


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    inverted = images >= threshold[:, None, None, None]
    return torch.where(inverted, 255 - images, images)
