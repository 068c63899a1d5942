# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Images of more than 8 bits or of any number of bands, as 8 bits."""

import io
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.image.io import imread_flags
from PIL.ImageFile import ImageFile

from .headers import TiffLayout, is_deep

NUMPY = b'\x93NUMPY'  # how a .npy file starts
PERCENTILES = (1.0, 99.0)
FORMS = (
    "'percentiles', a window (low, high), a list of windows, one for each "
    'band, or dict(percentiles=(1, 99), per_band=False)'
)
EASY_BANDS = 4  # so many OpenCV resizes at once


class ValueRange:
    """Map the values of an image linearly to 0 to 255.

    Args:
        setting (Any): ``value_range`` of :class:`LoadImage`.

    Raises:
        ValueError: The setting is none of those.

    Example:
        >>> twelve_bits = ValueRange((0, 4095))
        >>> twelve_bits(np.array([[0, 819, 4095, 5000]], np.uint16))
        array([[  0,  51, 255, 255]], dtype=uint8)
    """

    def __init__(self, setting: Any) -> None:
        self.windows: np.ndarray | None = None
        self.percentiles, self.per_band = PERCENTILES, False
        if setting == 'percentiles':
            return
        if isinstance(setting, Mapping):
            pair = _pair(setting.get('percentiles', PERCENTILES))
            self.per_band = setting.get('per_band', False)
            known = setting.keys() <= {'percentiles', 'per_band'}
            if pair and pair[0] >= 0 and pair[1] <= 100 and known:
                self.percentiles = pair
                if isinstance(self.per_band, bool):
                    return
        elif pair := _pair(setting):
            self.windows = np.array([pair])
            return
        elif isinstance(setting, (list, tuple)) and setting:
            pairs = [_pair(part) for part in setting]
            if all(pairs):
                self.windows = np.array(pairs)
                return
        raise ValueError(
            f'LoadImage: value_range={setting!r} must be {FORMS}, where '
            'low < high'
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the image as uint8; what lies outside is cut to its ends.

        Args:
            image (np.ndarray): Real numbers, (H, W) or (H, W, C), BGR if C
                is 3. NaN becomes 0.

        Raises:
            ValueError: Its bands are not as many as the windows, or there is
                no number in it.
        """
        bands = image.shape[2] if image.ndim == 3 else 1
        if self.windows is None:
            low, high = self._percentiles(image)
        else:
            if len(self.windows) not in (1, bands):
                raise ValueError(
                    f'LoadImage: value_range has {len(self.windows)} windows, '
                    f'but the image has {bands} bands: give one window for '
                    'each band, or one for all'
                )
            # Windows are in the order of the file.
            low, high = self.windows[:: -1 if bands == 3 else 1].T
        # 16 bits fit into fp32; 32 bits need fp64.
        kind = np.result_type(image.dtype, np.float32)
        low, high = low.astype(kind), high.astype(kind)
        # Of a range that is empty, the values above it are white.
        span = np.maximum(high - low, np.finfo(kind).tiny)
        with np.errstate(over='ignore', invalid='ignore'):
            mapped = (image - low) / span * 255
        mapped = np.nan_to_num(mapped, copy=False, nan=0)
        return np.rint(mapped.clip(0, 255, out=mapped)).astype(np.uint8)

    def _percentiles(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and greatest value, each (1,) or (C,)."""
        split = self.per_band and image.ndim == 3
        ends = []
        for band in np.moveaxis(image, -1, 0) if split else [image]:
            values = band[np.isfinite(band)]
            if not len(values):
                raise ValueError('nothing but NaN and infinite values')
            ends.append(np.percentile(values, self.percentiles))
        low, high = np.transpose(ends)
        return low, high


def _pair(value: Any) -> tuple[float, float] | None:
    """Return two finite numbers, the lower first, or None."""
    if (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(v, Real) for v in value)
        and not any(isinstance(v, bool) for v in value)
        and value[0] < value[1]
        and np.isfinite(value).all()
    ):
        return float(value[0]), float(value[1])
    return None


def checked(image: np.ndarray | None) -> np.ndarray:
    """Return what was decoded if it is an image.

    Raises:
        ValueError: It is None, OpenCV's answer to anything else.
    """
    if image is None:
        raise ValueError('no image, cut off, or of a kind unknown to OpenCV')
    return image


def decode_image(
    content: bytes,
    color_type: str,
    backend: str,
    header: ImageFile | None,
    tiff: TiffLayout | None,
) -> np.ndarray:
    """Return an image with all its bits: gray, BGR or RGBA.

    Color type and backend are those of mmcv's ``imfrombytes``.

    Raises:
        ValueError, cv2.error: It cannot be decoded, or not rightly.
    """
    flag: int | str = color_type
    if backend in ('cv2', 'tifffile'):
        if tiff and not tiff.is_easy:
            raise ValueError(
                f'a TIFF of {tiff.channels} x {tiff.bits} bits, which OpenCV '
                'does not read rightly: pip install tifffile and set '
                "LoadImage's imdecode_backend='tifffile', or save arrays "
                '(height, width, bands) as .npy files'
            )
        backend, flag = 'cv2', imread_flags[color_type] | cv2.IMREAD_ANYDEPTH
        if tiff and tiff.is_deep:  # of some OpenCV makes None otherwise
            flag = cv2.IMREAD_UNCHANGED
    elif header and is_deep(header):
        raise ValueError(
            f'imdecode_backend={backend!r} would cut it to 8 bits: set '
            "'cv2', the default"
        )
    image = checked(mmcv.imfrombytes(content, flag=flag, backend=backend))
    if image.shape[2:] == (4,):  # BGRA
        bands = [2, 1, 0, 3] if color_type == 'unchanged' else [0, 1, 2]
        image = np.ascontiguousarray(image[..., bands])
    return image


def read_array(content: bytes) -> np.ndarray:
    """Return the array of a .npy file.

    Raises:
        ValueError: It is damaged, or holds Python objects.
    """
    return np.load(io.BytesIO(content), allow_pickle=False)


def bands_last(array: np.ndarray) -> np.ndarray:
    """Return an array of bands as image: (H, W) or (H, W, C), BGR if C is 3.

    Args:
        array (np.ndarray): Real numbers (H, W), (H, W, C), or (C, H, W)
            where C is less than both other sides; RGB if C is 3.

    Raises:
        ValueError: It has other dimensions, is empty, or not of numbers.
    """
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f'an array of shape {array.shape}, which is not (height, width) '
            'or (height, width, bands)'
        )
    if array.dtype.kind not in 'uif':
        raise ValueError(f'an array of {array.dtype}, not of real numbers')
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        array = np.moveaxis(array, 0, -1)
    if array.shape[2:] == (3,):
        array = array[..., ::-1]
    # In memory as OpenCV wants it, and in this machine's order of bytes.
    return np.ascontiguousarray(array, array.dtype.newbyteorder('='))


def with_channels(image: np.ndarray) -> np.ndarray:
    """Return an image as (H, W, C): one channel becomes three equal ones."""
    if image.ndim == 2 or image.shape[2:] == (1,):
        return cv2.merge([image] * 3)
    return image


def resize_bands(
    image: np.ndarray, size: tuple[int, int], how: int
) -> np.ndarray:
    """Resize an image (H, W, C) of any C, which OpenCV's does not.

    The size is width and height, px; ``how`` is OpenCV's interpolation.
    """
    if image.shape[2] <= EASY_BANDS:
        return cv2.resize(image, size, interpolation=how)
    parts: Sequence[np.ndarray] = [
        cv2.resize(image[..., i : i + EASY_BANDS], size, interpolation=how)
        for i in range(0, image.shape[2], EASY_BANDS)
    ]
    return np.dstack(parts)
