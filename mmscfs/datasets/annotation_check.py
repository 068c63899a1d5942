# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check the files of a detection data set: COCO's format and Pascal VOC's.

Each check raises FileNotFoundError or ValueError, which name the setting, its
value and the remedy. ``dataset`` is mmdet's, built with ``lazy_init=True``,
and ``where`` the path of its config, e.g. "train_dataloader.dataset".
"""

import os.path as osp
from collections.abc import Sequence
from typing import Any

from .coco_file import check_coco_boxes, read_coco
from .paths import check_inside
from .text import short, warn
from .transforms.loading import LoadImage, UnreadableImageError
from .voc_file import check_xml

NUM_IMAGES = 20  # opened of each data set, spread over it


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
    for image in coco['images']:
        check_inside(image['file_name'], f'{where}.ann_file={path!r}', folder)
    images = spread(coco['images'], NUM_IMAGES)
    check_images(
        [osp.join(folder, image['file_name']) for image in images],
        f'{where}.data_prefix.img={folder!r}',
    )


def check_voc(dataset: Any, where: str) -> None:
    """Check a data set in the format of Pascal VOC."""
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    _need_file(path, f'{where}.ann_file', dataset)
    try:
        with open(path, encoding='utf-8') as lines:
            ids = [line.rstrip('\n\r') for line in lines]
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{where}.ann_file={path!r} is no list of images: {error}'
        ) from error
    if not ids:
        raise ValueError(
            f'{where}.ann_file={path!r} has no images: the list is empty'
        )
    root = dataset.sub_data_root
    setting = f'{where}.data_prefix.sub_data_root'
    for folder in (dataset.ann_subdir, dataset.img_subdir):
        _need_folder(osp.join(root, folder), setting, dataset)
    names: set[str] = set()
    for name in ids:
        check_inside(name, f'{where}.ann_file={path!r}', root)
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
            f'{where}.ann_file={path!r}: no object in the annotations '
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


def check_images(paths: Sequence[str], setting: str) -> None:
    """Check that images exist and can be read."""
    missing = [path for path in paths if not osp.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f'{setting}: {len(missing)} of {len(paths)} images looked for do '
            f'not exist, e.g. {missing[0]!r}: correct the folder, or put the '
            'images there'
        )
    load = LoadImage()
    for path in paths:
        try:
            load(dict(img_path=path))
        except UnreadableImageError as error:
            raise ValueError(
                f'{setting}: {path!r} is damaged or no image: replace it '
                f'({error.__cause__})'
            ) from error


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
