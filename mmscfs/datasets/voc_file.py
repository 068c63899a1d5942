# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read annotations in the format of Pascal VOC, and check every object."""

import os
import os.path as osp
from collections.abc import Sequence
from xml.etree import ElementTree

from .text import cut

MAX_BYTES = 2**22  # VOC's own have a few thousand
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


class PlainBuilder(ElementTree.TreeBuilder):
    """Refuses what defines entities: bombs, and the contents of files."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Called before anything is defined.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f'it has a document type, {name!r}, as VOC has none')


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
    """Return the top of an XML file without a document type.

    Raises:
        ValueError: It is damaged, no XML, far too large, or has one.
        OSError: It cannot be read.
    """
    try:
        if osp.getsize(path) > MAX_BYTES:
            raise ValueError(f'larger than {MAX_BYTES} B')
        parser = ElementTree.XMLParser(target=PlainBuilder())
        return ElementTree.parse(path, parser).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f'{path}: damaged or no XML of VOC ({error}): make or copy it '
            'again'
        ) from error


def check_xml(path: str, classes: Sequence[str]) -> set[str]:
    """Check the boxes of the known classes; return the names of objects.

    Raises:
        ValueError: The file is damaged, or mmdet could not read the size or
            an object.
    """
    top = read_xml(path)
    image = top.findtext('filename') or f'{osp.basename(path)[:-4]}.jpg'
    width, height = size_of(top, path)
    names = set()
    for number, item in enumerate(top.findall('object'), 1):
        name = item.findtext('name')
        if not name:
            raise ValueError(
                f'{path}: object {number} in image {image!r} has no name: '
                'name or remove it'
            )
        names.add(name)
        if name not in classes:
            continue
        texts = [item.findtext(f'bndbox/{side}') for side in SIDES]
        problem = box_problem(texts, width, height)
        if problem:
            raise ValueError(
                f'{path}: the box {texts} of a {name!r} in image {image!r} '
                f'{problem}: correct or remove the object'
            )
        difficult = item.findtext('difficult', '0')
        if not is_flag(difficult):
            raise ValueError(
                f'{path}: difficult={cut(difficult)} of a {name!r} in image '
                f'{image!r} must be 0 or 1'
            )
    return names


def is_flag(text: str) -> bool:
    """Tell whether ``int`` reads a text, as mmdet does, and finds no sign."""
    try:
        return int(text) >= 0
    except ValueError:
        return False


def size_of(top: ElementTree.Element, path: str) -> tuple[float, float]:
    """Return an image's (width, height), infinite if it is not given.

    Raises:
        ValueError: It is no size in whole pixels.
    """
    if top.find('size') is None:
        return float('inf'), float('inf')
    texts = [top.findtext(f'size/{side}') for side in ('width', 'height')]
    try:
        width, height = (int(text or '') for text in texts)
    except (TypeError, ValueError):
        width = height = 0
    if min(width, height) < 1:
        raise ValueError(
            f'{path}: the size {texts} is not the width and height of an '
            'image in whole pixels: correct it, or remove <size>'
        )
    return width, height


def box_problem(
    texts: Sequence[str | None], width: float, height: float
) -> str | None:
    """Say what is wrong with the texts of a box's sides."""
    try:
        x1, y1, x2, y2 = (float(text or '') for text in texts)
    except (TypeError, ValueError):
        return 'is not of four numbers'
    if not all(abs(side) < 1e15 for side in (x1, y1, x2, y2)):
        return 'is not of four finite numbers'
    if x2 <= x1 or y2 <= y1:
        return 'is empty (xmax <= xmin or ymax <= ymin)'
    if x1 > width or y1 > height or x2 < 1 or y2 < 1:
        return f'lies outside of the image ({width}x{height})'
    return None
