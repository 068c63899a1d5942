# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What an image's header says, before it is decoded."""

import io
import struct

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
ORIENTATION = 0x0112  # EXIF's tag
ON_ITS_SIDE = (5, 6, 7, 8)  # of its values: rows and columns change places
# By how a file starts. Not PIL.Image.open, which has a limit of its own.
READERS = (
    (JPEG_START, JpegImageFile),
    (b'\x89PNG', PngImageFile),
    (b'GIF8', GifImageFile),
    (b'BM', BmpImageFile),
    (b'RIFF', WebPImageFile),
    (b'II', TiffImageFile),
    (b'MM', TiffImageFile),
    (b'P', PpmImageFile),
)
# What Pillow raises on a header that it cannot read.
DAMAGE = (
    *(SyntaxError, OSError, ValueError, LookupError, TypeError),
    *(OverflowError, struct.error),
)


def read_header(content: bytes) -> ImageFile | None:
    """Read a file's header: JPEG, PNG, GIF, BMP, WebP, TIFF and PNM.

    It takes 20 to 50 us, about 1% of an image's time. None for other formats,
    and for headers that are damaged.
    """
    for start, reader in READERS:
        if content.startswith(start):
            try:
                return reader(io.BytesIO(content))
            except DAMAGE:
                return None
    return None


def check_jpeg_end(content: bytes, header: ImageFile | None) -> None:
    """Check that a JPEG is not cut off, nor its end overwritten.

    Some decoders fill what is missing with gray, and do not say so.

    Raises:
        ValueError: Nothing marks its end.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return
    # Not in the header, which may have a preview, which is a JPEG too. Behind
    # the end there may be anything.
    file = header and header.fp
    if not file or content.find(JPEG_END, file.tell()) < 0:
        raise ValueError('a JPEG that is cut off: it has no end marker')


def check_pixels(header: ImageFile | None, limit: int) -> None:
    """Check the size of an image before memory is taken for it.

    Raises:
        ValueError: It has more pixels than the limit.
    """
    width, height = header.size if header else (0, 0)
    if width * height > limit:
        raise ValueError(
            f'{width} x {height} are {width * height:,} pixels, over '
            f"LoadImage's max_pixels={limit}"
        )


def jpeg_shape(header: ImageFile | None) -> tuple[int, int] | None:
    """Return the (height, width) that a JPEG's header tells, upright.

    None for other formats, and where Pillow cannot read the orientation.
    """
    if not isinstance(header, JpegImageFile):
        return None
    width, height = header.size
    try:
        has_exif = 'exif' in header.info
        orientation = header.getexif().get(ORIENTATION) if has_exif else 1
    except DAMAGE:
        return None
    # OpenCV turns the image upright.
    on_its_side = orientation in ON_ITS_SIDE
    return (width, height) if on_its_side else (height, width)


def is_on_its_side(header: ImageFile | None) -> bool:
    """Tell whether EXIF turns an image by a quarter."""
    try:
        found = header.getexif().get(ORIENTATION) if header else None
    except DAMAGE:
        return False
    return found in ON_ITS_SIDE
