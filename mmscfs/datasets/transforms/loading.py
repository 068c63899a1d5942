# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import ctypes
import importlib.util
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from torch.utils.data import get_worker_info

from .headers import (
    TiffLayout,
    check_jpeg_end,
    check_pixels,
    jpeg_shape,
    read_header,
    tiff_layout,
)
from .values import (
    FORMS,
    NUMPY,
    ValueRange,
    bands_last,
    checked,
    decode_image,
    read_array,
    with_channels,
)

DECODE_FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
# Settings that say what an image's values become.
LOOKS = ('color_type', 'imdecode_backend', 'value_range')
Box = tuple[int, int, int, int]  # top, left, height and width, px
MAX_PIXELS = 2**28  # 800 MB decoded
# glibc's numbers for two settings of its malloc, and their values in bytes:
# up to which size memory is its to keep, and how much of it may be unused.
MALLOC = {-3: 2**25, -1: 2**27}
# What reading and decoding raise; the last two are Pillow's.
UNREADABLE = (
    OSError,
    ValueError,
    MemoryError,
    cv2.error,
    SyntaxError,
    DecompressionBombError,
)


class UnreadableImageError(ValueError):
    """An image file that is missing or cannot be decoded."""


@contextmanager
def named(path: str) -> Iterator[None]:
    """Turn the errors of reading an image into one that names its file."""
    try:
        yield
    except UNREADABLE as error:
        # A name may have bytes that are not UTF-8, which a log cannot, and
        # line breaks, which would break its lines.
        name = os.fsencode(path).decode('utf-8', 'backslashreplace')
        name = name.replace('\n', '\\n')
        raise UnreadableImageError(
            f'cannot read image {name}: '
            f'{str(error).strip() or type(error).__name__}'
        ) from error


def read(path: str, backend_args: dict | None = None) -> bytes:
    """Return the bytes of a file, wherever it is.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a file, or empty.
    """
    backend = fileio.get_file_backend(
        path, backend_args=backend_args, enable_singleton=True
    )
    if isinstance(backend, fileio.LocalBackend):
        check_regular(path)
    content = backend.get(path)
    if not content:
        raise ValueError('an empty file')
    return content


def check_regular(path: str) -> None:
    """Check that a path is a file, or a link to one.

    Reading a pipe or a device may last for ever.

    Raises:
        OSError: It does not exist.
        ValueError: It is something else.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError('a folder, pipe or device, not a file')


def decode(content: bytes, reduction: int = 1) -> np.ndarray:
    """Return a BGR image, at a scale of 1 / reduction.

    Raises:
        ValueError, cv2.error: OpenCV does not decode this.
    """
    data = np.frombuffer(content, np.uint8)
    return checked(cv2.imdecode(data, DECODE_FLAGS[reduction]))


@cache
def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, up to 128 MB.

    Every image takes some megabytes and frees them. glibc gives them back to
    the system, which hands them out again page by page, filled with zeros: a
    quarter of a millisecond a megabyte. Does nothing where malloc is not
    glibc's.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        for setting, value in MALLOC.items():
            libc.mallopt(setting, value)


class EncodedImage:
    """A JPEG file's content, which waits for the scale of its decoding.

    Errors name its path; its shape is height and width, px, by its header. It
    is decoded once at each scale.
    """

    def __init__(
        self, content: bytes, path: str, shape: tuple[int, int]
    ) -> None:
        self.content = content
        self.path = path
        self.shape = shape
        self._decoded: dict[int, np.ndarray] = {}

    def decode(self, reduction: int) -> np.ndarray | None:
        """Return the BGR image at a scale of 1 / reduction, rounded up.

        None if it is not of the size that the header says.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        image = self._decode(reduction)
        expected = tuple(-(-side // reduction) for side in self.shape)
        return image if image.shape[:2] == expected else None

    def decode_in_full(self) -> np.ndarray:
        """Return the BGR image, of whatever size it is.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        return self._decode(1)

    def _decode(self, reduction: int) -> np.ndarray:
        if reduction not in self._decoded:
            with named(self.path):
                self._decoded[reduction] = decode(self.content, reduction)
        return self._decoded[reduction]


def reduced_box(box: Box, reduction: int) -> Box:
    """Scale a box, its edges rounded to pixels.

    Where EXIF mirrors or turns an image whose sides are not multiples, the
    part of a pixel at the end comes first: up to a pixel more.
    """
    if reduction == 1:
        return box
    top, left, height, width = box
    top, bottom, left, right = (
        (edge + reduction // 2) // reduction
        for edge in (top, top + height, left, left + width)
    )
    return top, left, bottom - top, right - left


def greatest_reduction(
    boxes: Sequence[Box],
    sides: Sequence[int],
    margins: Mapping[int, float],
) -> int:
    """Return the greatest reduction that leaves every view its pixels.

    Without one it is 1. Each view shows a box, and has a side in px. For each
    reduction, greatest first, ``margins`` has how many pixels of a crop there
    must be for each of its view.
    """
    for reduction, margin in margins.items():
        cuts = (reduced_box(box, reduction)[2:] for box in boxes)
        if all(
            min(c) >= margin * side
            for c, side in zip(cuts, sides, strict=True)
        ):
            return reduction
    return 1


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with an error that names the file.

    Images come out with 8 bits, and nothing is cut to them unasked: a file
    of 16 bits, of signed or floating point values, needs ``value_range``. A
    gray file gives three equal channels. Besides images this reads arrays
    (H, W) or (H, W, C) from .npy files: C bands in their order, but three as
    RGB. TIFFs that OpenCV does not read rightly, such as those of five
    bands, need ``imdecode_backend='tifffile'`` and that package.

    With ``reduced``, a JPEG is left for :class:`MultiCrop` to decode, at 1/2,
    1/4 or 1/8 of its size where every crop still has pixels enough for its
    view (``margins`` of ``FILTERS``). Boxes and random draws are the same.
    What changes is the filter: before the crop is resized, libjpeg takes means
    of pixels, which MultiCrop sharpens; and the edges of a crop, by at most
    half a pixel of the view. docs/en/speed.md says which images are reduced.
    Other formats, and files with a header that Pillow cannot read, are decoded
    here in full.

    Before an image is decoded, its size is read from its header, and what is
    no file, such as a pipe, or a JPEG without its end, is refused. What a
    JPEG lost elsewhere cannot be told: it has no checksums.

    Args:
        reduced (bool): Only for pipelines with MultiCrop as the next step.
            Defaults to False.
        max_pixels (int): An image of more pixels is refused, before memory
            is taken for it. Of formats other than those of ``read_header``
            and .npy, OpenCV's own limit of 2**30 holds. Defaults to 2**28, a
            square of 16384 px.
        value_range (Any): Which values become 0 and 255; those between are
            mapped linearly, those outside cut, for files of any kind, 8 bits
            too. A window ``(low, high)``; a list of windows, one for each
            band in the file's order; "percentiles": from the 1st to the
            99th percentile of each image; or ``dict(percentiles=(1, 99),
            per_band=False)``, where ``per_band=True`` takes each band's own.
            Defaults to None: 8-bit files as they are, and no others.
        **kwargs: Those of ``LoadImageFromFile``, but neither
            ``ignore_empty`` nor ``file_client_args``; with ``reduced``,
            ``backend_args`` alone. ``color_type='unchanged'`` keeps a fourth
            channel, and ``imdecode_backend='tifffile'`` is for TIFFs alone.

    Raises:
        UnreadableImageError: The file is missing, empty, cut off, too large,
            no image that OpenCV decodes, or has values that need a
            ``value_range``. :class:`ImageFiles` can skip such files.
        ValueError: A setting is not valid, or ``reduced`` is set along with
            another way of decoding.

    Example:
        >>> pipeline = [dict(type='LoadImage', value_range=(0, 4095))]
    """

    def __init__(
        self,
        reduced: bool = False,
        max_pixels: int = MAX_PIXELS,
        value_range: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(reduced, bool):
            raise ValueError(
                f'LoadImage: reduced={reduced!r} must be True or False'
            )
        if type(max_pixels) is not int or max_pixels < 1:
            raise ValueError(
                f'LoadImage: max_pixels={max_pixels!r} must be a whole '
                'number >= 1'
            )
        for name in ('ignore_empty', 'file_client_args'):
            if kwargs.get(name):
                raise ValueError(
                    f'LoadImage: {name}={kwargs[name]!r} is not supported: '
                    "remove it; ImageFiles skips files with on_error='skip'"
                )
        others = sorted(set(kwargs) - {'backend_args'})
        others += ['value_range'] * (value_range is not None)
        if reduced and others:
            raise ValueError(
                f'LoadImage: reduced=True decodes by itself, without '
                f'{", ".join(others)}: remove one or the other'
            )
        self.reduced = reduced
        self.max_pixels = max_pixels
        self.value_range = value_range
        self._map = None if value_range is None else ValueRange(value_range)
        super().__init__(**kwargs)
        if (
            self.imdecode_backend == 'tifffile'
            and not importlib.util.find_spec('tifffile')
        ):
            raise ValueError(
                "LoadImage: imdecode_backend='tifffile' needs that package: "
                'pip install tifffile'
            )

    def transform(self, results: dict) -> dict:
        """Add ``img``, uint8 (H, W, C), read from ``img_path``.

        It is BGR if C is 3. With ``reduced`` it is an ``EncodedImage`` if
        that is possible.
        """
        if get_worker_info() is not None:  # the main process is the user's
            keep_freed_memory()
        path = results['img_path']
        with named(path):
            content = read(path, self.backend_args)
            header = read_header(io.BytesIO(content))
            tiff = tiff_layout(io.BytesIO(content))
            if known := tiff or header:
                check_pixels(known.size, self.max_pixels)
            check_jpeg_end(content, header)
            shape = jpeg_shape(header) if self.reduced else None
            if shape is not None:
                image = EncodedImage(content, path, shape)
            else:
                image = self._decode(content, header, tiff)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _decode(
        self,
        content: bytes,
        header: ImageFile | None,
        tiff: TiffLayout | None,
    ) -> np.ndarray:
        """Return the image in full, decoded and mapped as the settings say."""
        if content.startswith(NUMPY):
            image = bands_last(read_array(content))
            check_pixels(image.shape[1::-1], self.max_pixels)
        elif tiff and self.imdecode_backend == 'tifffile':
            image = bands_last(mmcv.imfrombytes(content, backend='tifffile'))
        else:
            kind, backend = self.color_type, self.imdecode_backend
            image = decode_image(content, kind, backend, header, tiff)
        if self._map is not None:
            image = self._map(image)
        elif image.dtype != np.uint8:
            raise ValueError(
                f'it has values of {image.dtype} from {image.min()} to '
                f'{image.max()}, which LoadImage does not cut to 8 bits '
                'unasked: set value_range of LoadImage (e.g. train_dataloader'
                f'.dataset.pipeline.0.value_range) to {FORMS}'
            )
        if self.color_type.startswith('grayscale') and image.shape[2:] == (3,):
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        image = with_channels(image)
        return image.astype(np.float32) if self.to_float32 else image

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, reduced={self.reduced}, '
            f'max_pixels={self.max_pixels}, value_range={self.value_range!r})'
        )


def loader_like(steps: Sequence[Mapping], **otherwise: Any) -> LoadImage:
    """Return what loads images as a pipeline's config does.

    With color type, way of decoding and range of values of its first
    ``LoadImage`` or ``LoadImageFromFile``. With other settings if images are
    loaded in another way, or as they are, by mmcv's type with
    ``color_type='unchanged'``.
    """
    for step in steps:
        kind = step.get('type')
        name = getattr(kind, '__name__', str(kind)).split('.')[-1]
        unchanged = step.get('color_type') == 'unchanged'
        if (
            name == 'LoadImage'
            or name == 'LoadImageFromFile'
            and not unchanged
        ):
            return LoadImage(**{k: step[k] for k in LOOKS if k in step})
    return LoadImage(**otherwise)
