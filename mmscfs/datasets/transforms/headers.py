# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What an image's header says, before it is decoded."""

import struct
from typing import BinaryIO, NamedTuple

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
ORIENTATION = 0x0112  # EXIF's tag
ON_ITS_SIDE = (5, 6, 7, 8)  # of its values: rows and columns change places
# By how a file starts. Not PIL.Image.open, which limits pixels itself.
READERS = (
    (JPEG_START, JpegImageFile),
    (b'\x89PNG', PngImageFile),
    (b'GIF8', GifImageFile),
    (b'BM', BmpImageFile),
    (b'RIFF', WebPImageFile),
    (b'II', TiffImageFile),
    (b'MM', TiffImageFile),
    (b'P', PpmImageFile),
    (b'\0\0\0\x0cjP  ', Jpeg2KImageFile),
    (b'\xff\x4f\xff\x51', Jpeg2KImageFile),
)
# A TIFF's tags that say how it stores an image, and their defaults: width,
# height, channels, bits, the kind of numbers, and whether they lie by plane.
TIFF_TAGS = ((256, 0), (257, 0), (277, 1), (258, 1), (339, 1), (284, 1))
EASY_VALUES = ((1, 16), (2, 16), (2, 32), (3, 32), (3, 64))  # kinds and bits
# What Pillow raises on a header that it cannot read.
DAMAGE = (
    *(SyntaxError, OSError, ValueError, LookupError, TypeError),
    *(OverflowError, struct.error),
)


def first_bytes(file: BinaryIO, count: int) -> bytes:
    """Return how a file starts, and go back to its start."""
    file.seek(0)
    start = file.read(count)
    file.seek(0)
    return start


def read_header(file: BinaryIO) -> ImageFile | None:
    """Read a file's header: JPEG, JPEG 2000, PNG, GIF, BMP, WebP, TIFF, PNM.

    In memory it takes 20 to 50 us, about 1% of an image's time. None for
    other formats, and for headers that are damaged.
    """
    content = first_bytes(file, 8)
    for start, reader in READERS:
        if content.startswith(start):
            try:
                return reader(file)
            except DAMAGE:
                return None
    return None


class TiffLayout(NamedTuple):
    """How a TIFF stores an image, as its first directory says."""

    width: int  #: px.
    height: int  #: px.
    channels: int  #: Numbers of a pixel.
    bits: int  #: Of such a number.
    kind: int  #: 1 for unsigned, 2 for signed, 3 for floating point.
    by_plane: bool  #: Whether the channels follow each other.

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px, as Pillow has it."""
        return self.width, self.height

    @property
    def is_deep(self) -> bool:
        """Whether its values are others than 0 to 255."""
        return self.bits > 8 or self.kind != 1

    @property
    def is_easy(self) -> bool:
        """Whether OpenCV decodes all of it, and rightly.

        OpenCV 4.12 cuts two channels of 16 bits to 8, and leaves memory
        unset where such channels lie one after the other.
        """
        if not self.is_deep:
            return self.channels <= 4
        return (
            self.channels in (1, 3, 4)
            and not (self.by_plane and self.channels > 1)
            and (self.kind, self.bits) in EASY_VALUES
        )


def tiff_layout(file: BinaryIO) -> TiffLayout | None:
    """Read how a TIFF stores its image, also one that Pillow does not know.

    None for other formats and for directories that are damaged.
    """
    content = first_bytes(file, 16)
    if not content.startswith((b'II', b'MM')):
        return None
    try:
        big = 8 * (43 in content[2:4])
        tags = ImageFileDirectory_v2(content[: 8 + big])
        file.seek(tags.next)
        tags.load(file)
        numbers = [tags.get(tag, default) for tag, default in TIFF_TAGS]
        width, height, channels, bits, kind, planes = (
            max(n) if isinstance(n, tuple) else n for n in numbers
        )
        if not (width and height):
            return None
        return TiffLayout(width, height, channels, bits, kind, planes == 2)
    except DAMAGE:
        return None


def is_deep(header: ImageFile) -> bool:
    """Tell whether Pillow would cut an image's values to 8 bits."""
    tiles = str(header.tile)
    return header.mode[0] in 'IF' or ';16' in tiles or '65535' in tiles


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


def check_pixels(size: tuple[int, int], limit: int) -> None:
    """Check the (width, height) of an image before memory is taken for it.

    Raises:
        ValueError: It has more pixels than the limit.
    """
    width, height = size
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
