# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check annotations in Pascal VOC's format: every file and object."""

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from ..image_files import check_inside
from .common import check_images, cut, need, short, spread, warn

MAX_BYTES = 2**22  # VOC's own have a few thousand
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def check_voc(dataset: Any, where: str, steps: Sequence[Mapping] = ()) -> None:
    """Check a data set in the format of Pascal VOC.

    Args:
        dataset (Any): mmdet's, built with ``lazy_init=True``.
        where (str): The path of its config, e.g. "train_dataloader.dataset".
        steps (Sequence[Mapping]): The configs of its pipeline.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: Annotations are damaged, or do not fit the images or
            classes.
    """
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    listing = f'{where}.ann_file={path!r}'
    need(path, f'{where}.ann_file', dataset)
    try:
        with open(path, encoding='utf-8') as lines:
            ids = [line.rstrip('\n\r') for line in lines]
    except UnicodeDecodeError as error:
        raise ValueError(f'{listing} is not a list of images: {error}') from (
            error
        )
    if not ids:
        raise ValueError(
            f'{listing} has no images: the list is empty. Write the name of '
            'an image on each line'
        )
    root = dataset.sub_data_root
    setting = f'{where}.data_prefix.sub_data_root'
    for folder in (dataset.ann_subdir, dataset.img_subdir):
        need(osp.join(root, folder), setting, dataset, is_folder=True)
    names: set[str] = set()
    sizes = {}
    for name in ids:
        check_inside(name, listing, root)
        xml = osp.join(root, dataset.ann_subdir, f'{name}.xml')
        if not osp.isfile(xml):
            raise FileNotFoundError(
                f'{listing} lists {name!r}, but its annotation {xml!r} does '
                f'not exist: correct the list, or {setting}={root!r}'
            )
        found, sizes[name] = check_xml(xml, classes)
        names |= found
    unknown = sorted(names - set(classes))
    if names and len(unknown) == len(names):
        raise ValueError(
            f'{where}: none of the {len(classes)} classes '
            f'({short(classes)}) is in the annotations; found '
            f'{short(unknown)}. Set {where}.metainfo=dict(classes=...) to '
            "these, and num_classes of the model's heads to their number"
        )
    if not names and not dataset.test_mode:
        raise ValueError(
            f'{listing}: the annotations below {root!r} hold no object, so '
            'there is nothing to learn: annotate the images, or correct '
            f'{setting}'
        )
    if unknown:
        warn(
            f'{where}: objects called {short(unknown)} are left out, they '
            'are not in metainfo.classes'
        )
    some = spread(ids)
    check_images(
        [osp.join(root, dataset.img_subdir, f'{name}.jpg') for name in some],
        f'{setting}={root!r}',
        [sizes[name] for name in some],
        steps,
    )


class PlainBuilder(ElementTree.TreeBuilder):
    """Refuses what defines entities: bombs, and the contents of files."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Called before anything is defined.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f'it has a document type, {name!r}; VOC has none')


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
    """Return the top of an XML file without a document type.

    Raises:
        ValueError: It is damaged, not XML, far too large, or has one.
        OSError: It cannot be read.
    """
    try:
        if osp.getsize(path) > MAX_BYTES:
            raise ValueError(f'larger than {MAX_BYTES} B')
        parser = ElementTree.XMLParser(target=PlainBuilder())
        return ElementTree.parse(path, parser).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f'{path}: damaged or not XML of VOC ({error}): make or copy it '
            'again'
        ) from error


def check_xml(
    path: str, classes: Sequence[str]
) -> tuple[set[str], tuple[int, int] | None]:
    """Check the boxes of the known classes.

    Returns:
        tuple: The names of objects; (width, height) of the image, None
        without ``<size>``.

    Raises:
        ValueError: The file is damaged, or mmdet could not read the size or
            an object.
    """
    top = read_xml(path)
    image = top.findtext('filename') or f'{osp.basename(path)[:-4]}.jpg'
    size = size_of(top, path)
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
        problem = box_problem(texts, size)
        if problem:
            raise ValueError(
                f'{path}: the box {texts} of a {name!r} in image {image!r} '
                f'{problem}: correct or remove the object'
            )
        difficult = item.findtext('difficult', '0')
        if difficult.strip() not in ('0', '1'):
            raise ValueError(
                f'{path}: difficult={cut(difficult)} of a {name!r} in image '
                f'{image!r} must be 0 or 1'
            )
    return names, size


def size_of(top: ElementTree.Element, path: str) -> tuple[int, int] | None:
    """Return an image's (width, height), None if it is not given.

    Raises:
        ValueError: It is not a size in whole pixels.
    """
    if top.find('size') is None:
        return None
    texts = [top.findtext(f'size/{side}') for side in ('width', 'height')]
    try:
        width, height = (int(text or '') for text in texts)
    except ValueError:
        width = height = 0
    if min(width, height) < 1:
        raise ValueError(
            f'{path}: the size {texts} is not the width and height of an '
            'image in whole pixels: correct it, or remove <size>'
        )
    return width, height


def box_problem(
    texts: Sequence[str | None], size: tuple[int, int] | None
) -> str | None:
    """Say what is wrong with the texts of a box's sides."""
    try:
        x1, y1, x2, y2 = (float(text or '') for text in texts)
    except (TypeError, ValueError):
        return 'does not have four numbers'
    if not all(abs(side) < 1e15 for side in (x1, y1, x2, y2)):
        return 'does not have four finite numbers'
    if x2 <= x1 or y2 <= y1:
        return 'is empty (xmax <= xmin or ymax <= ymin)'
    width, height = size or (float('inf'), float('inf'))
    if x1 > width or y1 > height or x2 < 1 or y2 < 1:
        return f'lies outside of the image ({width}x{height})'
    return None
