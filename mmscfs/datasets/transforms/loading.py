# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL.JpegImagePlugin import JpegImageFile

DECODE_FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
REDUCTIONS = (8, 4, 2)
ORIENTATION = 0x0112  # EXIF's tag
ON_ITS_SIDE = (5, 6, 7, 8)  # of its values: rows and columns change places
JPEG_START = b'\xff\xd8\xff'


class UnreadableImageError(ValueError):
    """An image file that is missing or cannot be decoded."""


@contextmanager
def named(path: str) -> Iterator[None]:
    """Turn the errors of reading an image into one that names its file."""
    try:
        yield
    except (OSError, ValueError, AssertionError, cv2.error) as error:
        # imdecode answers None for bytes that are no image, which mmcv
        # meets with an assertion or, on an empty file, OpenCV's error.
        raise UnreadableImageError(
            f'cannot read image {path}: '
            f'{str(error).strip() or type(error).__name__}'
        ) from error


def decode(content: bytes, reduction: int = 1) -> np.ndarray:
    """Return a BGR image, at a scale of 1 / reduction.

    Raises:
        ValueError, cv2.error: This is no image that OpenCV decodes.
    """
    data = np.frombuffer(content, np.uint8)
    image = cv2.imdecode(data, DECODE_FLAGS[reduction])
    if image is None:
        raise ValueError('OpenCV cannot decode it')
    return image


class EncodedImage:
    """A JPEG image that waits for the scale at which it is decoded.

    Args:
        content (bytes): The file.
        path (str): Its name, for errors.
        shape (tuple[int, int]): Height and width, px, as its header says.
    """

    def __init__(
        self, content: bytes, path: str, shape: tuple[int, int]
    ) -> None:
        self.content = content
        self.path = path
        self.shape = shape

    def decode(self, reduction: int) -> np.ndarray | None:
        """Return the BGR image at a scale of 1 / reduction, rounded up.

        None if it is not of the size that the header says.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        with named(self.path):
            image = decode(self.content, reduction)
        expected = tuple(-(-side // reduction) for side in self.shape)
        return image if image.shape[:2] == expected else None

    def decode_in_full(self) -> np.ndarray:
        """Return the BGR image, of whatever size it is.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        with named(self.path):
            return decode(self.content)


def jpeg_shape(content: bytes) -> tuple[int, int] | None:
    """Return the (height, width) that a JPEG's header tells, upright.

    None for other formats, and where Pillow cannot read the header.
    """
    if not content.startswith(JPEG_START):
        return None
    try:
        header = JpegImageFile(io.BytesIO(content))  # decodes nothing
        width, height = header.size
        orientation = 1
        if 'exif' in header.info:
            orientation = header.getexif().get(ORIENTATION)
    except (
        SyntaxError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        struct.error,
    ):
        return None
    if orientation in ON_ITS_SIDE:  # OpenCV turns the image upright
        return width, height
    return height, width


def reduced_box(
    box: tuple[int, int, int, int], reduction: int
) -> tuple[int, int, int, int]:
    """Scale a box (top, left, height, width), its edges rounded to pixels.

    Where EXIF mirrors or turns an image whose sides are no multiples, the
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
    boxes: Sequence[tuple[int, int, int, int]], sides: Sequence[int]
) -> int:
    """Return the greatest reduction that leaves every view its pixels.

    Without one it is 1, so that no view is enlarged because of it.

    Args:
        boxes (Sequence[tuple[int, int, int, int]]): What each view shows.
        sides (Sequence[int]): The side of each view, px.
    """
    for reduction in REDUCTIONS:
        cuts = (reduced_box(box, reduction)[2:] for box in boxes)
        if all(min(c) >= side for c, side in zip(cuts, sides, strict=True)):
            return reduction
    return 1


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with an error that names the file.

    With ``reduced``, a JPEG is left for :class:`MultiCrop` to decode, at 1/2,
    1/4 or 1/8 of its size where every crop still has the pixels of its view.
    Boxes and random draws are the same. What changes is the filter: libjpeg
    leaves out an image's high frequencies, which is much like averaging
    blocks of pixels, before the crop is resized; and the edges of a crop are
    those of the smaller image's pixels, at most half a pixel of the view off.
    With 2 x 224 and 8 x 96 px and the paper's scales, no image of 640 x 480
    px is reduced, two in three are of 1000 x 750 px, and every one from 1200
    x 900 px on. Other formats, and files with a header that Pillow cannot
    read, are decoded here in full.

    Args:
        reduced (bool): Only for pipelines with MultiCrop as the next step.
            Defaults to False.
        **kwargs: Those of ``LoadImageFromFile``; with ``reduced``,
            ``backend_args`` alone.

    Raises:
        UnreadableImageError: The file is missing, empty, or no image that
            OpenCV decodes. :class:`ImageFiles` can skip such files.
        ValueError: ``reduced`` is set along with another way of decoding.
    """

    def __init__(self, reduced: bool = False, **kwargs) -> None:
        others = sorted(set(kwargs) - {'backend_args'})
        if reduced and others:
            raise ValueError(
                f'LoadImage: reduced=True decodes by itself, without '
                f'{", ".join(others)}: remove one or the other'
            )
        self.reduced = reduced
        super().__init__(**kwargs)

    def transform(self, results: dict) -> dict:
        """Add ``img`` (BGR uint8, (H, W, 3)) read from ``img_path``.

        With ``reduced`` it is an :class:`EncodedImage` if that is possible.
        """
        path = results['img_path']
        with named(path):
            if not self.reduced:
                return super().transform(results)
            content = fileio.get(path, backend_args=self.backend_args)
            shape = jpeg_shape(content)
            if shape is None:
                image = decode(content)
            else:
                image = EncodedImage(content, path, shape)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, reduced={self.reduced})'
