# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check annotations in COCO's format: every entry, box and mask."""

import json
import os.path as osp
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..image_files import check_inside
from .common import check_images, cut, need, short, spread, warn
from .masks import MAX_AREA, mask_problem

MAX_SIDE = 2**20  # px; OpenCV reads no longer ones
# Why mmdet does not train on an annotation.
NO_IMAGE = 'an image_id that the file lacks'
NO_CATEGORY = 'a category_id that the file lacks'
CROWD = 'iscrowd=1'


# What mmdet and pycocotools read of an entry has to be, in words and code.
Rule = tuple[str, Callable[[Any], bool]]
KEY: Rule = 'a whole number or a text', lambda v: type(v) in (int, str)
TEXT: Rule = 'a text', lambda v: type(v) is str
NUMBER: Rule = (
    'a finite number',
    lambda v: type(v) in (int, float) and abs(v) < 1e15,
)
LENGTH: Rule = (
    f'a number > 0, at most {MAX_SIDE}',
    lambda v: NUMBER[1](v) and 0 < v <= MAX_SIDE,
)
BOX: Rule = '', lambda v: True  # see box_problem
NEEDED = {
    'images': dict(id=KEY, file_name=TEXT, width=LENGTH, height=LENGTH),
    'annotations': dict(
        id=KEY, image_id=KEY, category_id=KEY, bbox=BOX, area=NUMBER
    ),
    'categories': dict(id=KEY, name=TEXT),
}


def check_coco(
    dataset: Any, where: str, steps: Sequence[Mapping] = ()
) -> None:
    """Check a data set in COCO's format.

    Args:
        dataset (Any): mmdet's, built with ``lazy_init=True``.
        where (str): The path of its config, e.g. "train_dataloader.dataset".
        steps (Sequence[Mapping]): The configs of its pipeline.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: Annotations are damaged, or do not fit the images, the
            classes or the pipeline.
    """
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    setting = f'{where}.ann_file={path!r}'
    need(path, f'{where}.ann_file', dataset)
    coco = read_coco(path, setting)
    names = [category['name'] for category in coco['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        raise ValueError(
            f'{where}: {len(missing)} of {len(classes)} classes are not '
            f'categories of {path!r}: missing {short(missing)}; found '
            f'{short(names)}. Set {where}.metainfo=dict(classes=...) to '
            "names in the file, and num_classes of the model's heads to "
            'their number'
        )
    known = [name for name in names if name in classes]
    if known != list(classes):
        # mmdet numbers the classes in the order of the file.
        raise ValueError(
            f'{where}.metainfo lists the classes in another order than '
            f'{path!r}, so mmdet would give the detections wrong names: set '
            f'classes=({", ".join(map(repr, known))})'
        )
    needs_masks = any(step.get('with_mask') for step in steps)
    check_annotations(
        coco, classes, setting, needs_masks, not dataset.test_mode
    )
    if 'img' not in dataset.data_prefix:
        raise ValueError(
            f'{where}.data_prefix={dict(dataset.data_prefix)} must name the '
            "folder of the images, e.g. dict(img='train2017/')"
        )
    folder = dataset.data_prefix['img']
    need(folder, f'{where}.data_prefix.img', dataset, is_folder=True)
    for image in coco['images']:
        check_inside(image['file_name'], setting, folder)
    images = spread(coco['images'])
    check_images(
        [osp.join(folder, image['file_name']) for image in images],
        f'{where}.data_prefix.img={folder!r}',
        [(image['width'], image['height']) for image in images],
        steps,
    )


def read_coco(path: str, setting: str) -> dict:
    """Read a COCO file's images, annotations and categories.

    Args:
        path (str): The file.
        setting (str): The setting that names it, with its value.

    Raises:
        ValueError: It is damaged, or an entry lacks something, or has it
            twice or of a wrong type.
    """
    try:
        with open(path, encoding='utf-8') as file:
            coco = json.load(file)
    except (ValueError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        raise ValueError(
            f'{setting} is damaged or not JSON: '
            f'{"nested too deep" if is_deep else error}. Make or copy it again'
        ) from error
    if not isinstance(coco, dict):
        raise ValueError(
            f'{setting} holds a {type(coco).__name__} instead of an object '
            'with images, annotations and categories'
        )
    # Those of test images have none.
    coco['annotations'] = coco.get('annotations') or []
    for part, keys in NEEDED.items():
        entries = coco.get(part) or []
        if not isinstance(entries, list):
            raise ValueError(
                f'{setting}: {part!r} is a {type(entries).__name__} instead '
                'of a list of entries'
            )
        for entry in entries:
            check_entry(entry, keys, f'{setting} has an entry of {part!r}')
        check_unique(entries, 'id', f'{setting}: {part!r}')
        if not entries and part != 'annotations':
            raise ValueError(
                f'{setting} has no {part}: its list {part!r} is empty or '
                'missing; name the annotations that belong to the images'
            )
    check_unique(coco['categories'], 'name', f"{setting}: 'categories'")
    for image in coco['images']:
        if image['width'] * image['height'] > MAX_AREA:
            raise ValueError(
                f'{setting} has an image of {image["width"]} x '
                f'{image["height"]} px, more than masks have: {cut(image)}'
            )
    return coco


def check_entry(entry: Any, keys: Mapping[str, Rule], what: str) -> None:
    """Check that an entry has what it needs.

    Raises:
        ValueError: Something is missing, or of a wrong type.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{what} that is not an object: {cut(entry)}')
    lost = [key for key in keys if key not in entry]
    if lost:
        raise ValueError(f'{what} without {", ".join(lost)}: {cut(entry)}')
    for key, (words, is_valid) in keys.items():
        if not is_valid(entry[key]):
            raise ValueError(
                f'{what} with {key}={cut(entry[key])}, which must be {words}: '
                f'{cut(entry)}'
            )


def check_unique(entries: Sequence[Mapping], key: str, what: str) -> None:
    """Check that no two entries have the same value.

    Raises:
        ValueError: Two have; the later would replace the first.
    """
    seen = set()
    for entry in entries:
        if entry[key] in seen:
            raise ValueError(
                f'{what} has {key}={entry[key]!r} twice, the second time in '
                f'{cut(entry)}: give each a different one'
            )
        seen.add(entry[key])


def check_annotations(
    coco: Mapping,
    classes: Sequence[str],
    setting: str,
    needs_masks: bool,
    is_training: bool,
) -> None:
    """Check every box and mask, and that there is something to learn.

    Boxes without width or height, of which COCO has some, and polygons of
    fewer than three points are not refused: mmdet leaves them out. It also
    leaves out annotations of images or categories that the file lacks, of
    which this warns.

    Args:
        coco (Mapping): What :func:`read_coco` returned.
        classes (Sequence[str]): The classes of the data set.
        setting (str): The setting that names the file, for errors.
        needs_masks (bool): Whether the pipeline loads masks.
        is_training (bool): Else it is an evaluation, by pycocotools.

    Raises:
        ValueError: A box or mask is malformed, outside of its image or
            missing, or training would learn nothing.
    """
    images = {image['id']: image for image in coco['images']}
    names = {c['id']: c['name'] for c in coco['categories']}
    left_out: dict[str, list] = defaultdict(list)
    beyond, without_mask = [], []
    for item in coco['annotations']:
        image = images.get(item['image_id'])
        problem = annotation_problem(item, image, is_training)
        if problem:
            raise ValueError(
                f'{setting}: annotation {item["id"]} of image '
                f'{(image or {}).get("file_name")!r} {problem}'
            )
        reason = reason_to_skip(item, image, names, classes)
        left_out[reason].append(item)
        if reason in ('', CROWD) and not item.get('segmentation'):
            without_mask.append(item)
        if image is not None:
            x, y, w, h = item['bbox']
            if x + w > image['width'] + 2 or y + h > image['height'] + 2:
                beyond.append(image['file_name'])
    total = len(coco['annotations'])
    if needs_masks and without_mask:
        raise ValueError(
            f'{setting}: {len(without_mask)} of {total} annotations have no '
            'segmentation, which the pipeline loads, e.g. annotation '
            f'{without_mask[0]["id"]}: add or remove them, or train a '
            'detector without masks (LoadAnnotations with_mask=False)'
        )
    learned = left_out.pop('', [])
    if is_training and not learned:
        found = ', '.join(f'{len(v)} with {k}' for k, v in left_out.items())
        boxes = [item['bbox'] for item in coco['annotations']]
        if boxes and all(x + w <= 1 and y + h <= 1 for x, y, w, h in boxes):
            found += '; its boxes are fractions of the image, but must be px'
        raise ValueError(
            f'{setting} has no box of its classes in any of its {len(images)} '
            f'images that can be learned from: there is nothing to learn '
            f'({found or "no annotations"})'
        )
    if beyond:
        warn(
            f'{setting}: {len(beyond)} of {total} boxes reach '
            f'beyond their image (e.g. in {beyond[0]!r}): is bbox [left, '
            'top, width, height], and not [left, top, right, bottom]?'
        )
    for reason in (NO_IMAGE, NO_CATEGORY):
        if items := left_out.get(reason):
            key = reason.split()[1]
            warn(
                f'{setting}: {len(items)} of {total} annotations are left '
                f'out, with {reason} (e.g. {key}={items[0][key]!r} of '
                f'annotation {items[0]["id"]})'
            )


def reason_to_skip(
    item: Mapping,
    image: Mapping | None,
    names: Mapping[Any, str],
    classes: Sequence[str],
) -> str:
    """Say why mmdet does not train on an annotation; '' if it does."""
    if image is None:
        return NO_IMAGE
    if item['category_id'] not in names:
        return NO_CATEGORY
    if names[item['category_id']] not in classes:
        return 'a category that is not in metainfo.classes'
    if item['area'] <= 0:
        return 'area <= 0'
    if min(item['bbox'][2:]) < 1:
        return 'a box below 1 px'
    if item.get('ignore'):
        return 'ignore=1'
    return CROWD if item.get('iscrowd') else ''


def annotation_problem(
    item: Mapping, image: Mapping | None, is_training: bool
) -> str | None:
    """Say what is wrong with an annotation, and what to do."""
    crowd = item.get('iscrowd', 0 if is_training else None)
    if crowd not in (0, 1):
        value = cut(item['iscrowd']) if 'iscrowd' in item else 'missing'
        return f'has iscrowd {value}: write 0, or 1 for a crowd'
    problem = box_problem(item['bbox'], image)
    if problem:
        return (
            f'has the bbox {cut(item["bbox"])}, which {problem}: correct or '
            'remove it; a COCO bbox is [left, top, width, height] in pixels'
        )
    mask = item.get('segmentation')
    problem = mask_problem(mask, image) if mask and image else None
    if problem:
        return (
            f'has the segmentation {cut(mask)}, which {problem}: correct or '
            'remove it'
        )
    return None


def box_problem(box: Any, image: Mapping | None) -> str | None:
    """Say what is wrong with a box [x, y, w, h]."""
    if not isinstance(box, list) or len(box) != 4:
        return 'is not [x, y, width, height]'
    if not all(map(NUMBER[1], box)):
        return 'is not [x, y, width, height] in finite numbers'
    x, y, w, h = box
    if w < 0 or h < 0:
        return 'has a negative size'
    if image is None:
        return None
    width, height = image['width'], image['height']
    if x >= width or y >= height or x + w < 0 or y + h < 0:
        return f'lies outside of the image ({width}x{height})'
    return None
