# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the first bytes of an image file say, before it is decoded."""

import io
import struct

from PIL.JpegImagePlugin import JpegImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

JPEG_START = b'\xff\xd8\xff'
JPEG_END = b'\xff\xd9'
# Markers of a JPEG: frames, which have the size, and what has no length.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
BARE = {0x01, *range(0xD0, 0xD8)}
SCAN = 0xDA
ORIENTATION = 0x0112  # EXIF's tag
ON_ITS_SIDE = (5, 6, 7, 8)  # of its values: rows and columns change places
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

    Some decoders fill what is missing with grey, and do not say so.

    Raises:
        ValueError: Nothing marks its end.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return
    # Not in the header, which may have a preview, a JPEG of its own. Behind
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
        if content.startswith(b'\x89PNG'):
            width, height = struct.unpack_from('>II', content, 16)
        elif content.startswith(b'GIF8'):
            width, height = struct.unpack_from('<HH', content, 6)
        elif content.startswith(b'BM'):
            width, height = struct.unpack_from('<ii', content, 18)
        elif content.startswith(b'RIFF') and content[8:12] == b'WEBP':
            width, height = webp_size(content)
        elif content.startswith((b'II', b'MM')):
            width, height = TiffImageFile(io.BytesIO(content)).size
        elif content[:1] == b'P' and content[1:2] in b'123456':
            width, height = PpmImageFile(io.BytesIO(content)).size
        else:
            return None
    except DAMAGE:
        return None
    return abs(height), abs(width)  # BMP: negative if the top row is first


def webp_size(content: bytes) -> tuple[int, int]:
    """Return the (width, height) of a WebP file, of either kind."""
    kind = content[12:16]
    if kind == b'VP8X':
        width, height = (
            int.from_bytes(content[i : i + 3], 'little') + 1 for i in (24, 27)
        )
    elif kind == b'VP8L':
        (bits,) = struct.unpack_from('<I', content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        sides = struct.unpack_from('<HH', content, 26)
        width, height = (side & 0x3FFF for side in sides)
    return width, height


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
