# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the first bytes of an image file say, before it is decoded."""

import io
import struct

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

JPEG_START = b'\xff\xd8\xff'
JPEG_END = b'\xff\xd9'
# Markers of a JPEG: frames, which have the size, and what has no length.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
BARE = {0x01, *range(0xD0, 0xD8)}
SCAN = 0xDA
ORIENTATION = 0x0112  # EXIF's tag
ON_ITS_SIDE = (5, 6, 7, 8)  # of its values: rows and columns change places
# Pillow's readers of headers, by how a file starts. JPEG's takes 20 to 50 us,
# about 1% of an image's time; jpeg_segments takes 2, and finds the data too.
READERS = (
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
    SyntaxError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
)


def jpeg_segments(content: bytes) -> tuple[tuple[int, int] | None, int]:
    """Return a JPEG's (height, width) as stored, and where its data begin.

    Raises:
        IndexError, struct.error: The file ends before its data.
    """
    shape, place = None, 2
    while True:
        if content[place] != 0xFF or content[place + 1] in (0, 0xFF):
            place += 1  # padding, or junk that decoders skip as well
            continue
        marker = content[place + 1]
        if marker == SCAN:
            return shape, place
        place += 2
        if marker not in BARE:
            (length,) = struct.unpack_from('>H', content, place)
            if marker in FRAMES:
                shape = struct.unpack_from('>HH', content, place + 3)
            place += length


def check_jpeg_end(content: bytes) -> None:
    """Check that a JPEG is not cut off, nor its end overwritten.

    Some decoders fill what is missing with gray, and do not say so.

    Raises:
        ValueError: Nothing marks its end.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return
    # Not in the header, which may have a preview, which is a JPEG too. Behind
    # the end there may be anything.
    try:
        _, data = jpeg_segments(content)
    except (IndexError, struct.error):
        data = len(content)
    if content.find(JPEG_END, data) < 0:
        raise ValueError('a JPEG that is cut off: it has no end marker')


def stored_shape(content: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of which a file's header tells.

    Knows JPEG, PNG, GIF, BMP, WebP, TIFF and PNM. None for others, and for
    headers that are damaged.
    """
    try:
        if content.startswith(JPEG_START):
            return jpeg_segments(content)[0]
        for start, reader in READERS:
            if content.startswith(start):
                width, height = reader(io.BytesIO(content)).size
                return height, width
    except DAMAGE:
        pass
    return None


def check_pixels(content: bytes, limit: int) -> None:
    """Check the size of an image before memory is taken for it.

    Raises:
        ValueError: It has more pixels than the limit.
    """
    shape = stored_shape(content)
    if shape is not None and shape[0] * shape[1] > limit:
        height, width = shape
        raise ValueError(
            f'{width} x {height} are {width * height:,} pixels, over '
            f"LoadImage's max_pixels={limit}"
        )


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
    except DAMAGE:
        return None
    if orientation in ON_ITS_SIDE:  # OpenCV turns the image upright
        return width, height
    return height, width
