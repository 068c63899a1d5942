# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Makes odd and bad image files, and says what must become of each."""

import io
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56


class Case(NamedTuple):
    """A file, and what must become of it."""

    name: str
    content: bytes | Callable[[Path], None]  # or what makes it
    image: np.ndarray | None = None  # RGB, if it is to be read
    off: int = 0  # the most that a level may differ
    reason: str = ''  # in the error, if it is to be refused

    def make(self, folder: Path) -> Path:
        """Make the file."""
        path = folder / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def picture() -> np.ndarray:
    """Return a smooth RGB image that no flip, turn or channel swap keeps."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    red = 20 + 3 * columns
    green = 200 - 4 * rows
    blue = 60 + rows + columns
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def grey() -> np.ndarray:
    return picture()[..., 0]


def encoded(image: Image.Image | np.ndarray, kind: str, **settings) -> bytes:
    """Return the file of an image, as Pillow writes it."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def jpeg(image: np.ndarray | None = None, **settings) -> bytes:
    settings = dict(quality=95, subsampling=0) | settings
    return encoded(picture() if image is None else image, 'JPEG', **settings)


def opencv(ending: str, image: np.ndarray) -> bytes:
    """Return the file of an image, as OpenCV writes it."""
    done, data = cv2.imencode(ending, image)
    assert done
    return data.tobytes()


def in_three(image: np.ndarray) -> np.ndarray:
    """Return a grey image as one of three channels."""
    return np.repeat(image[..., None], 3, axis=-1)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    check = zlib.crc32(kind + data)
    return (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)
    )


def sized_png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims another size."""
    data = encoded(picture(), 'PNG')
    header = struct.pack('>II', width, height) + data[24:29]
    return data[:8] + chunk(b'IHDR', header) + data[33:]


def sized_jpeg(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    data = jpeg()
    start = data.index(b'\xff\xc0') + 5
    return data[:start] + struct.pack('>HH', height, width) + data[start + 4 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoiled(data: bytes) -> bytes:
    """Return a file with some bytes in its middle overwritten."""
    middle = len(data) // 2
    return data[:middle] + b'\x12\x34\x56' * 4 + data[middle + 12 :]


def with_preview(data: bytes) -> bytes:
    """Return a JPEG with a second, whole one in its header."""
    preview = b'Exif\0\0' + jpeg(picture()[::4, ::4])
    length = struct.pack('>H', len(preview) + 2)
    return data[:2] + b'\xff\xe1' + length + preview + data[2:]


def make_pickle(path: Path) -> None:
    """Write code that makes a file beside, were it loaded."""

    class Code:
        def __reduce__(self):
            return open, (f'{path}.ran', 'w')

    path.write_bytes(pickle.dumps(Code()))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # By a short name: a socket's has room for 107 characters.
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f'/proc/self/fd/{folder}/{path.name}')
        os.close(folder)


def make_link(path: Path) -> None:
    """Make a link to a file that is fine."""
    (path.parent / 'linked').write_bytes(encoded(picture(), 'PNG'))
    path.symlink_to('linked')


def cases() -> list[Case]:
    """Return all images, first those that are to be read."""
    rgb, three = picture(), in_three(grey())
    png, whole = encoded(rgb, 'PNG'), jpeg()
    deep = rgb[..., ::-1].astype(np.uint16) * 257
    cmyk = Image.fromarray(rgb).convert('CMYK')
    cut, none = 'cut off: it has no end', 'no image, cut off, or of a kind'
    huge = "pixels, over LoadImage's max_pixels"
    no_file = 'a folder, pipe or device'
    bits = 'does not cut to 8 bits unasked: set value_range of LoadImage'
    good = [
        ('plain.jpg', whole, rgb, 4),
        ('grey.jpg', jpeg(grey()), three, 4),
        ('cmyk.jpg', encoded(cmyk, 'JPEG', quality=95), rgb, 4),
        ('progressive.jpg', jpeg(progressive=True), rgb, 4),
        ('preview.jpg', with_preview(whole), rgb, 4),
        # As of a phone, which appends a film.
        ('film.jpg', whole + b'film \xff\xda \xff\xc0' * 9, rgb, 4),
        ('cmyk.tif', encoded(cmyk, 'TIFF'), rgb, 0),
        ('1x1.jpg', jpeg(rgb[:1, :1]), rgb[:1, :1], 4),
        ('png called.jpg', png, rgb, 0),
        ('jpeg called.png', whole, rgb, 4),
        ('link.jpg', make_link, rgb, 0),
    ]
    bad = [
        ('zero bytes.jpg', b'', 'an empty file'),
        ('page.jpg', b'<!DOCTYPE html><title>404 Not Found</title>', none),
        ('noise.jpg', np.random.default_rng(0).bytes(5000), none),
        ('code.jpg', make_pickle, none),
        ('half.jpg', half(whole), cut),
        ('half progressive.jpg', half(jpeg(progressive=True)), cut),
        ('half with preview.jpg', half(with_preview(whole)), cut),
        ('20 bytes short.jpg', whole[:-20], cut),
        ('header alone.jpg', whole[:300], cut),
        # As a download leaves it that reserved its space.
        ('half zeros.jpg', half(whole).ljust(len(whole), b'\0'), cut),
        ('half.png', half(png), none),
        ('spoiled.png', spoiled(png), none),
        ('half.gif', half(encoded(rgb, 'GIF')), none),
        ('half.webp', half(encoded(rgb, 'WEBP')), none),
        ('spoiled.webp', spoiled(encoded(rgb, 'WEBP', lossless=True)), none),
        ('half.tif', half(encoded(rgb, 'TIFF')), none),
        ('half.ppm', half(encoded(rgb, 'PPM')), none),
        # Read with a value_range, see test_values.py.
        ('grey 16 bits.png', opencv('.png', deep[..., 2]), bits),
        ('16 bits.png', opencv('.png', deep), bits),
        ('16 bits.tif', opencv('.tif', deep), bits),
        ('float.tif', encoded(grey().astype(np.float32), 'TIFF'), bits),
        ('0x0.png', sized_png(0, 0), none),
        ('0x0.jpg', sized_jpeg(0, 0), none),
        ('huge.png', sized_png(17_000, 17_000), huge),
        ('huge.jpg', sized_jpeg(65_500, 65_500), huge),
        ('huge.ppm', b'P6 99999 99999 255\n', huge),
        ('missing.jpg', lambda path: None, 'No such file'),
        ('broken link.jpg', lambda p: p.symlink_to('gone'), 'No such file'),
        ('circle.jpg', lambda p: p.symlink_to(p.name), 'Too many levels'),
        ('folder.jpg', Path.mkdir, no_file),
        ('pipe.jpg', os.mkfifo, no_file),
        ('device.jpg', lambda p: p.symlink_to('/dev/zero'), no_file),
        ('socket.jpg', make_socket, no_file),
    ]
    return [
        *(Case(*case) for case in good),
        *(Case(name, content, reason=why) for name, content, why in bad),
    ]


CASES = cases()
