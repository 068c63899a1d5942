# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check the files of a detection data set: COCO's format and Pascal VOC's.

Each check raises FileNotFoundError or ValueError, which name the setting, its
value and the remedy. ``dataset`` is mmdet's, built with ``lazy_init=True``,
and ``where`` the path of its config, e.g. "train_dataloader.dataset".
"""

import json
import logging
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import cv2
from mmengine.logging import print_log

NUM_IMAGES = 20  # opened of each data set, spread over it
NUM_XMLS = 200  # read of each VOC data set, spread over it


def check_coco(dataset: Any, where: str) -> None:
    """Check a data set in COCO's format."""
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    _need_file(path, f'{where}.ann_file', dataset)
    coco = read_coco(path, where)
    names = [category['name'] for category in coco['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        raise ValueError(
            f'{where}: {len(missing)} of {len(classes)} classes are no '
            f'categories of {path!r}: missing {short(missing)}; found '
            f'{short(names)}. Set {where}.metainfo=dict(classes=...) to '
            "names in the file, and num_classes of the model's heads to "
            'their number'
        )
    known = [name for name in names if name in classes]
    if known != list(classes):
        # mmdet numbers the classes in the order of the file.
        warn(
            f'{where}.metainfo lists the classes in another order than '
            f'{path!r}: mmdet will call the detections wrong names; use '
            f'classes=({short(known)})'
        )
    boxes = check_coco_boxes(coco, set(known), path)
    if not boxes and not dataset.test_mode:
        raise ValueError(
            f'{where}.ann_file={path!r} has no box of its classes in any of '
            f'its {len(coco["images"])} images: there is nothing to learn'
        )
    if 'img' not in dataset.data_prefix:
        raise ValueError(
            f'{where}.data_prefix={dict(dataset.data_prefix)} must name the '
            "folder of the images, e.g. dict(img='train2017/')"
        )
    folder = dataset.data_prefix['img']
    _need_folder(folder, f'{where}.data_prefix.img', dataset)
    images = spread(coco['images'], NUM_IMAGES)
    check_images(
        [osp.join(folder, image['file_name']) for image in images],
        f'{where}.data_prefix.img={folder!r}',
    )


def read_coco(path: str, where: str) -> dict:
    """Read a COCO file's images, annotations and categories."""
    setting = f'{where}.ann_file={path!r}'
    try:
        with open(path, encoding='utf-8') as file:
            coco = json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{setting} is damaged or no json: {error.msg} at line '
            f'{error.lineno}, column {error.colno}: make or copy it again'
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f'{setting} is no json: {error}') from error
    needed = {
        'images': ('id', 'file_name', 'width', 'height'),
        'annotations': ('image_id', 'category_id', 'bbox', 'area'),
        'categories': ('id', 'name'),
    }
    if not isinstance(coco, dict):
        raise ValueError(f'{setting} holds a list, no COCO annotations')
    # Those of test images have none.
    coco.setdefault('annotations', [])
    for part, keys in needed.items():
        for entry in coco.get(part) or []:
            lost = [key for key in keys if key not in entry]
            if lost:
                raise ValueError(
                    f'{setting} has an entry of {part!r} without '
                    f'{", ".join(lost)}: {short([entry])}'
                )
    for part in ('images', 'categories'):
        if not coco.get(part):
            raise ValueError(
                f'{setting} has no {part}: its list {part!r} is empty or '
                'missing; name the annotations that belong to the images'
            )
    return coco


def check_coco_boxes(coco: Mapping, known: set[str], path: str) -> int:
    """Check every box [x, y, w, h]; return how many are of known classes.

    Boxes without width or height, of which COCO itself has some, are not
    refused: mmdet leaves them out.
    """
    images = {image['id']: image for image in coco['images']}
    ids = {c['id'] for c in coco['categories'] if c['name'] in known}
    count = 0
    beyond = []
    for item in coco['annotations']:
        image, box = images.get(item['image_id']), item['bbox']
        if image is None:
            continue
        width, height = image['width'], image['height']
        problem = None
        try:
            x, y, w, h = map(float, box)
        except (TypeError, ValueError):
            problem = 'is not [x, y, width, height]'
        else:
            if not (w >= 0 and h >= 0):
                problem = 'has a negative size'
            elif x >= width or y >= height or x + w < 0 or y + h < 0:
                problem = f'lies outside of the image ({width}x{height})'
            elif x + w > width + 2 or y + h > height + 2:
                beyond.append(image['file_name'])
        if problem:
            raise ValueError(
                f'{path}: the bbox {box!r} of image {image["file_name"]!r} '
                f'(annotation {item.get("id")}) {problem}: correct or remove '
                'it; a COCO bbox is [left, top, width, height] in pixels'
            )
        count += item['category_id'] in ids
    if beyond:
        warn(
            f'{path}: {len(beyond)} of {len(coco["annotations"])} boxes reach '
            f'beyond their image (e.g. in {beyond[0]!r}): is bbox [left, '
            'top, width, height], and not [left, top, right, bottom]?'
        )
    return count


def check_voc(dataset: Any, where: str) -> None:
    """Check a data set in the format of Pascal VOC."""
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    _need_file(path, f'{where}.ann_file', dataset)
    with open(path, encoding='utf-8') as lines:
        ids = [line.rstrip('\n\r') for line in lines]
    if not ids:
        raise ValueError(
            f'{where}.ann_file={path!r} has no images: the list is empty'
        )
    root = dataset.sub_data_root
    setting = f'{where}.data_prefix.sub_data_root'
    for folder in (dataset.ann_subdir, dataset.img_subdir):
        _need_folder(osp.join(root, folder), setting, dataset)
    names: set[str] = set()
    for name in spread(ids, NUM_XMLS):
        xml = osp.join(root, dataset.ann_subdir, f'{name}.xml')
        if not osp.isfile(xml):
            raise FileNotFoundError(
                f'{where}.ann_file={path!r} lists {name!r}, but there is no '
                f'annotation {xml!r}: correct the list, or {setting}='
                f'{root!r}'
            )
        names |= check_xml(xml, classes)
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
            f'{where}.ann_file={path!r}: no object in the first annotations '
            f'below {root!r}: there is nothing to learn'
        )
    if unknown:
        warn(
            f'{where}: objects called {short(unknown)} are left out, they '
            'are not in metainfo.classes'
        )
    check_images(
        [
            osp.join(root, dataset.img_subdir, f'{name}.jpg')
            for name in spread(ids, NUM_IMAGES)
        ],
        f'{setting}={root!r}',
    )


def check_xml(path: str, classes: Sequence[str]) -> set[str]:
    """Check the boxes of the known classes; return the names of objects."""
    try:
        top = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(
            f'{path}: damaged or no XML ({error}): make or copy it again'
        ) from error
    image = top.findtext('filename') or f'{osp.basename(path)[:-4]}.jpg'
    names = set()
    for item in top.findall('object'):
        name = item.findtext('name')
        names.add(str(name))
        if name not in classes:
            continue
        texts = [
            item.findtext(f'bndbox/{side}')
            for side in ('xmin', 'ymin', 'xmax', 'ymax')
        ]
        try:
            x1, y1, x2, y2 = map(float, texts)
            width, height = (
                float(top.findtext(f'size/{side}', 'inf'))
                for side in ('width', 'height')
            )
        except (TypeError, ValueError):
            problem = 'is not of four numbers'
        else:
            if x2 > x1 and y2 > y1:
                if x1 <= width and y1 <= height and x2 >= 1 and y2 >= 1:
                    continue
                problem = f'lies outside of the image ({width}x{height})'
            else:
                problem = 'is empty (xmax <= xmin or ymax <= ymin)'
        raise ValueError(
            f'{path}: the box {texts} of a {name!r} in image {image!r} '
            f'{problem}: correct or remove the object'
        )
    return names


def check_images(paths: Sequence[str], setting: str) -> None:
    """Check that images exist and can be read."""
    missing = [path for path in paths if not osp.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f'{setting}: {len(missing)} of {len(paths)} images looked for do '
            f'not exist, e.g. {missing[0]!r}: correct the folder, or put the '
            'images there'
        )
    for path in paths:
        if cv2.imread(path) is None:
            raise ValueError(
                f'{setting}: {path!r} is damaged or no image: replace it'
            )


def _need_file(path: str, setting: str, dataset: Any) -> None:
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'{setting}={path!r} does not exist (data_root='
            f'{dataset.data_root!r}): put the annotations there, or correct '
            'the path or data_root'
        )


def _need_folder(path: str, setting: str, dataset: Any) -> None:
    if path and not osp.isdir(path):
        raise FileNotFoundError(
            f'{setting}: no folder {path!r} (data_root='
            f'{dataset.data_root!r}): put the images and annotations there, '
            'or correct the path or data_root'
        )


def spread(items: Sequence, count: int) -> list:
    """Return at most ``count`` items at even distances, the first among."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def short(items: Sequence, limit: int = 10) -> str:
    """List a few items, and say how many there are."""
    text = ', '.join(map(repr, items[:limit]))
    return text if len(items) <= limit else f'{text}, ... ({len(items)})'


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
