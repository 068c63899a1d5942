# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read annotations in Pascal VOC's format."""

import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from ..image_names import check_inside
from .annotations import (
    SIDES,
    AnnotatedImage,
    Annotations,
    Item,
    check_entry,
)
from .common import need

MAX_BYTES = 2**22  # VOC's own have a few thousand


def find_voc(dataset: Any, where: str) -> Annotations:
    """Read the annotations of mmdet's data set."""
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    listing = f'{where}.ann_file={path!r}'
    root = dataset.sub_data_root
    setting = f'{where}.data_prefix.sub_data_root'
    for folder in (dataset.ann_subdir, dataset.img_subdir):
        need(osp.join(root, folder), setting, dataset, is_folder=True)
    images = []
    for name in read_names(path, listing, root):
        xml = osp.join(root, dataset.ann_subdir, f'{name}.xml')
        if not osp.isfile(xml):
            raise FileNotFoundError(
                f'{listing} lists {name!r}, but its annotation {xml!r} does '
                f'not exist: correct the list, or {setting}={root!r}'
            )
        file = osp.join(dataset.img_subdir, f'{name}.jpg')
        images.append(read_voc(xml, file, classes))
    found = set().union(*(image.classes() for image in images))
    unknown = sorted(found.difference(classes))
    # VOC lists no classes: those without an object are fine, if some have.
    names = [*classes, *unknown] if found.intersection(classes) else unknown
    return Annotations(images, names, root, setting)


def read_names(path: str, listing: str, folder: str) -> list[str]:
    """Read a list of images, whose names stay in their folder."""
    try:
        with open(path, encoding='utf-8') as lines:
            names = [line.rstrip('\n\r') for line in lines]
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{listing} is not a list of images: {error}'
        ) from error
    if not names:
        raise ValueError(
            f'{listing} has no images: the list is empty. Write the name of '
            'an image on each line'
        )
    for name in names:
        check_inside(name, listing, folder)
    return names


class PlainBuilder(ElementTree.TreeBuilder):
    """Refuses what defines entities: bombs, and the contents of files."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Called before anything is defined."""
        raise ValueError(f'it has a document type, {name!r}; VOC has none')


def read_voc(
    path: str, file: str, classes: Sequence[str] = ()
) -> AnnotatedImage:
    """Read the XML of an image, as mmdet does.

    ``file`` is the image, below the folder of the data set; boxes are read of
    ``classes`` alone.

    Raises:
        ValueError: The file is damaged, or mmdet could not read the size or
            an object.
    """
    try:
        if osp.getsize(path) > MAX_BYTES:
            raise ValueError(f'larger than {MAX_BYTES} B')
        parser = ElementTree.XMLParser(target=PlainBuilder())
        root = ElementTree.parse(path, parser).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f'{path}: damaged or not XML of VOC ({error}): make or copy it '
            'again'
        ) from error
    size = None
    if root.find('size') is not None:
        sides = ('width', 'height')
        given = {
            side: to(int, root.findtext(f'size/{side}')) for side in sides
        }
        check_entry(given, 'size', path)
        size = given['width'], given['height']
    items = []
    for node in root.findall('object'):
        entry: dict[str, Any] = dict(name=node.findtext('name'))
        is_read = entry['name'] in classes
        if is_read:
            entry['difficult'] = to(int, node.findtext('difficult', '0'))
            for side in SIDES:
                entry[side] = to(float, node.findtext(f'bndbox/{side}'))
        check_entry(
            entry, 'object', path, () if is_read else ('difficult', *SIDES)
        )
        # mmdet cuts fractions off, and counts pixels from 0.
        box = (
            tuple(int(entry[side]) - 1 for side in SIDES) if is_read else None
        )
        items.append(Item(entry, entry['name'], box))
    return AnnotatedImage(path, file, size, items)


def to(kind: Callable[[Any], Any], text: str | None) -> Any:
    """Return a text as a number, or as it is where it is none."""
    try:
        return kind(text)
    except (TypeError, ValueError):
        return text
