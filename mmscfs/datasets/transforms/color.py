# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Color operations on uint8 images, fused where no value can clip.

Brightness, contrast, saturation and greying are affine maps of a pixel. A
factor up to 1 maps [0, 255] into itself, so such a map may wait and be
multiplied into the next one without changing the result beyond rounding; a
factor over 1 saturates, so everything waiting is applied there.
"""

from collections.abc import Sequence

import cv2
import numpy as np

# ITU-R 601-2 luma, as Pillow and torchvision grey an image.
LUMA_BGR = (0.114, 0.587, 0.299)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
STEPS = np.arange(256)
NO_SOLARIZE = 256  # a threshold above every value
NUM_OPERATIONS = 5  # four of jitter, and greying
NUM_COLORS = 2 * NUM_OPERATIONS + 2


def pack_colors(
    jitter: Sequence[tuple[int, float]],
    grey: bool,
    sigma: float,
    threshold: int,
) -> list[float]:
    """Write one view's color operations as numbers.

    Args:
        jitter (Sequence[tuple[int, float]]): Up to four operations with their
            values, in their order.
        grey (bool): Whether the view is greyed after them.
        sigma (float): Standard deviation of the blur, px, 0 for none.
        threshold (int): Values from here on are inverted.

    Returns:
        list[float]: NUM_COLORS numbers: five operations, their five values,
        sigma and threshold. Greying is a saturation of 0, nothing a
        brightness of 1.
    """
    steps = [*jitter, (SATURATION, 0.0)] if grey else [*jitter]
    steps += [(BRIGHTNESS, 1.0)] * (NUM_OPERATIONS - len(steps))
    operations, values = zip(*steps, strict=True)
    return [*operations, *values, sigma, threshold]


class PendingColor:
    """An image and the affine color map that it has yet to go through.

    With L(x) the luma of a pixel x, all maps here have the form
    gain * x + luma_gain * L(x) + offset, as luma weights sum to 1: three
    numbers say what waits. Images of other than three channels take brightness
    and contrast alone; their mean gray level is that of all channels.

    Args:
        image (np.ndarray): uint8 image (H, W, C), BGR if C is 3.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self._reset()

    def _reset(self) -> None:
        self.gain, self.luma_gain, self.offset = 1.0, 0.0, 0.0

    def _scale(self, factor: float, offset: float) -> None:
        self.gain *= factor
        self.luma_gain *= factor
        self.offset = factor * self.offset + offset
        if factor > 1:
            self.flush()

    def flush(self) -> np.ndarray:
        """Apply what waits and return the image (H, W, C)."""
        waiting = (self.gain, self.luma_gain, self.offset)
        if waiting == (1.0, 0.0, 0.0):
            return self.image
        if self.image.shape[2] == 3:
            gain, offset = self.gain, self.offset
            b, g, r = (self.luma_gain * luma for luma in LUMA_BGR)
            rows = (
                (b + gain, g, r, offset),
                (b, g + gain, r, offset),
                (b, g, r + gain, offset),
            )
            self.image = cv2.transform(self.image, np.array(rows))
        else:
            values = np.rint(self.gain * STEPS + self.offset)
            values = values.clip(0, 255).astype(np.uint8)
            self.image = cv2.LUT(self.image, values)
        self._reset()
        return self.image

    def brightness(self, factor: float) -> None:
        """Multiply by ``factor``."""
        self._scale(factor, 0.0)

    def contrast(self, factor: float) -> None:
        """Blend with the image's mean grey level."""
        if self.image.shape[2] == 3:
            mean = cv2.mean(self.image)
            luma = sum(w * m for w, m in zip(LUMA_BGR, mean, strict=False))
        else:
            luma = float(self.image.mean())
        grey = (self.gain + self.luma_gain) * luma + self.offset
        self._scale(factor, (1 - factor) * grey)

    def saturation(self, factor: float) -> None:
        """Blend with the image's grey version."""
        both = self.gain + self.luma_gain
        self.gain *= factor
        self.luma_gain = both - self.gain
        if factor > 1:
            self.flush()

    def hue(self, shift: float) -> None:
        """Turn the hue by ``shift`` of a full circle."""
        if round(shift * 256) % 256 == 0:
            return
        hsv = cv2.cvtColor(self.flush(), cv2.COLOR_BGR2HSV_FULL)
        # OpenCV writes the circle as 256 steps and reads it as 255.
        turned = np.rint((STEPS / 256 + shift) % 1 * 255).astype(np.uint8)
        hue = cv2.LUT(cv2.extractChannel(hsv, 0), turned)
        cv2.insertChannel(hue, hsv, 0)
        self.image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)

    def jitter(self, operation: int, value: float) -> None:
        """Apply one of BRIGHTNESS, CONTRAST, SATURATION and HUE."""
        (self.brightness, self.contrast, self.saturation, self.hue)[operation](
            value
        )

    def grey(self) -> np.ndarray:
        """Apply what waits and return the grey image (H, W)."""
        both = self.gain + self.luma_gain
        row = [both * luma for luma in LUMA_BGR] + [self.offset]
        return cv2.transform(self.image, np.array([row]))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Invert the uint8 values from ``threshold`` on."""
    if threshold == 128:  # there, the inverse is the smaller of the two
        return cv2.min(image, cv2.bitwise_not(image))
    values = np.arange(256, dtype=np.uint8)
    return cv2.LUT(image, np.where(values < threshold, values, 255 - values))
