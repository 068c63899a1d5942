# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Judge annotated images, whatever the format of their files.

The readers of COCO and VOC fill :class:`AnnotatedImage`. Rules say of which
type and range each field is that mmdet and pycocotools read.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from ..image_names import check_inside
from .common import check_images, cut, need, short, spread, warn
from .masks import mask_problem

MAX_SIDE = 2**20  # px; OpenCV reads no longer ones
# In words, and code.
Rule = tuple[str, Callable[[Any], bool]]
# Tables write whole numbers as 1.0, which is as good as 1.
KEY: Rule = (
    'a whole number of 64 bits or a text',
    lambda v: (
        type(v) is str
        or type(v) in (int, float)
        and -(2**63) <= v < 2**63
        and v == int(v)
    ),
)
TEXT: Rule = 'a text', lambda v: type(v) is str and v != ''
FLAG: Rule = '0 or 1', lambda v: type(v) in (int, bool, float) and v in (0, 1)
NUMBER: Rule = (
    'a finite number',
    lambda v: type(v) in (int, float) and abs(v) < 1e15,
)
LENGTH: Rule = (
    f'a number > 0, at most {MAX_SIDE}',
    lambda v: NUMBER[1](v) and 0 < v <= MAX_SIDE,
)
BOX: Rule = (
    '[x, y, width, height] in finite numbers',
    lambda v: type(v) is list and len(v) == 4 and all(map(NUMBER[1], v)),
)
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
RULES = {
    # COCO
    'images': dict(id=KEY, file_name=TEXT, width=LENGTH, height=LENGTH),
    'annotations': dict(id=KEY, image_id=KEY, category_id=KEY, bbox=BOX)
    | dict(area=NUMBER, iscrowd=FLAG, ignore=FLAG),
    'categories': dict(id=KEY, name=TEXT),
    # VOC
    'size': dict(width=LENGTH, height=LENGTH),
    'object': dict(name=TEXT, difficult=FLAG) | dict.fromkeys(SIDES, NUMBER),
}
# Why mmdet does not learn an object. It loads those of FLAGGED all the same.
NO_IMAGE = 'an image_id that the file lacks'
NO_CATEGORY = 'a category_id that the file lacks'
OTHER_CLASS = 'a class that is not in metainfo.classes'
FLAGGED = ('iscrowd=1', 'difficult=1')


class Item(NamedTuple):
    """An annotated object."""

    entry: Mapping  # as its file has it, for errors
    label: str | None  # its class, None if the file lacks it
    box: tuple[float, ...] | None  # left, top, right, bottom; None: not read
    mask: Any = None  # as in COCO's files


class AnnotatedImage(NamedTuple):
    """An image and its objects."""

    source: str  # the file of its annotations, for errors
    file: str  # below the folder of images; '' if a COCO file lacks it
    size: tuple[float, float] | None  # width, height; None if not given
    items: list[Item]

    def classes(self) -> set[str]:
        """Return the classes that it shows."""
        return {item.label for item in self.items if item.label}


class Annotations(NamedTuple):
    """What a reader found of a data set."""

    images: list[AnnotatedImage]
    names: list[str]  # the classes that the files know
    folder: str  # of the images
    setting: str  # that of the folder


def check_entry(
    entry: Any, part: str, source: str, optional: Sequence[str] = ()
) -> None:
    """Check that an entry has what RULES says, but for what is optional."""
    what = f'{source} has an entry of {part!r}'
    if not isinstance(entry, dict):
        raise ValueError(f'{what} that is not an object: {cut(entry)}')
    rules = RULES[part]
    lost = [key for key in rules if key not in entry and key not in optional]
    if lost:
        raise ValueError(
            f'{what} without {", ".join(lost)}: {cut(entry)}'
            + '. Add "iscrowd": 0 to each annotation' * ('iscrowd' in lost)
        )
    for key, (words, is_valid) in rules.items():
        if key in entry and not is_valid(entry[key]):
            raise ValueError(
                f'{what} with {key}={cut(entry[key])}, which must be {words}: '
                f'{cut(entry)}'
            )


def check_annotations(
    found: Annotations, dataset: Any, where: str, steps: Sequence[Mapping]
) -> None:
    """Check the classes, objects and images of mmdet's data set.

    ``where`` is the path of its config, e.g. "train_dataloader.dataset", and
    ``steps`` are those of its pipeline.

    Raises:
        FileNotFoundError: An image does not exist.
        ValueError: Annotations do not fit the images, the classes or the
            pipeline.
    """
    setting = f'{where}.ann_file={dataset.ann_file!r}'
    check_classes(found.names, dataset.metainfo['classes'], where, setting)
    need(found.folder, found.setting, dataset, is_folder=True)
    images = [image for image in found.images if image.file]
    for image in images:
        check_inside(image.file, image.source, found.folder)
    check_objects(found, dataset, setting, steps)
    some = spread(images)
    check_images(
        [image.file for image in some],
        found.folder,
        f'{found.setting}={found.folder!r}',
        [image.size for image in some],
        steps,
    )


def check_classes(
    names: Sequence[str], classes: Sequence[str], where: str, setting: str
) -> None:
    """Check that the files have the classes of the data set."""
    missing = [name for name in classes if name not in names]
    if names and missing:
        raise ValueError(
            f'{where}: {len(missing)} of {len(classes)} classes are not in '
            f'the annotations ({setting}): missing {short(missing)}; found '
            f'{short(names)}. Set {where}.metainfo=dict(classes=...) to '
            "names in the file, and num_classes of the model's heads to "
            'their number'
        )
    known = [name for name in names if name in classes]
    if names and known != list(classes):
        # mmdet numbers the classes in the order of a COCO file.
        raise ValueError(
            f'{where}.metainfo lists the classes in another order than '
            f'{setting}, so mmdet would give the detections wrong names: set '
            f'classes=({", ".join(map(repr, known))})'
        )
    unknown = [name for name in names if name not in classes]
    if unknown:
        warn(
            f'{where}: objects called {short(unknown)} are left out, they '
            'are not in metainfo.classes'
        )


def check_objects(
    found: Annotations,
    dataset: Any,
    setting: str,
    steps: Sequence[Mapping],
) -> None:
    """Check every box and mask, and that some objects count.

    What mmdet leaves out is not refused, such as COCO's boxes below a pixel,
    unless nothing else is there.
    """
    images = found.images
    has_masks = any(step.get('with_mask') for step in steps)
    classes = set(dataset.metainfo['classes'])  # of a copy, which is slow
    by_reason: dict[str, list[Mapping]] = defaultdict(list)
    beyond, without_mask = [], []
    for image in images:
        for item in image.items:
            if problem := item_problem(item, image.size):
                # The size may be the mistake, where EXIF turns the image.
                if image.size and image.file:
                    check_images(
                        [image.file],
                        found.folder,
                        f'{found.setting}={found.folder!r}',
                        [image.size],
                        steps,
                    )
                raise ValueError(
                    f'{image.source}: {cut(item.entry)} of image '
                    f'{image.file!r} {problem}: correct or remove it'
                )
            reason = reason_to_skip(item, image, dataset, classes)
            is_loaded = has_masks and reason in ('', *FLAGGED)
            if is_loaded and lacks_mask(item.mask, dataset.test_mode):
                without_mask.append(item.entry)
            by_reason[reason].append(item.entry)
            if image.size and item.box:
                width, height = image.size
                if item.box[2] > width + 2 or item.box[3] > height + 2:
                    beyond.append(image.file)
    total = sum(map(len, by_reason.values()))
    if without_mask:
        raise ValueError(
            f'{setting}: {len(without_mask)} of {total} annotations have no '
            'segmentation, or one of fewer than three points, which the '
            f'pipeline loads, e.g. {cut(without_mask[0])}: add or remove '
            'them, or train a detector without masks (LoadAnnotations '
            'with_mask=False)'
        )
    counted = by_reason.pop('', [])
    why = ', '.join(f'{len(v)} with {k}' for k, v in by_reason.items())
    # Test images may have no annotations at all.
    if not counted and (total or not dataset.test_mode):
        boxes = [item.box for image in images for item in image.items]
        if boxes and all(box and max(box) <= 1 for box in boxes):
            why += '; its boxes are fractions of the image, but must be px'
        number = sum(bool(image.file) for image in images)
        raise ValueError(
            f'{setting} has no object of its classes in any of its {number} '
            'images that counts: there is nothing to '
            f'{"evaluate" if dataset.test_mode else "learn"} '
            f'({why or "no annotations"})'
        )
    if beyond:
        warn(
            f'{setting}: {len(beyond)} of {total} boxes reach beyond their '
            f'image (e.g. in {beyond[0]!r}): is bbox [left, top, width, '
            'height], and not [left, top, right, bottom]?'
        )
    by_reason.pop(OTHER_CLASS, None)  # which check_classes names
    lost = [entry for entries in by_reason.values() for entry in entries]
    if 2 * len(lost) > total or {NO_IMAGE, NO_CATEGORY} & {*by_reason}:
        warn(
            f'{setting}: {len(lost)} of {total} annotations are left out: '
            f'{why}, e.g. {cut(lost[0])}'
        )


def reason_to_skip(
    item: Item, image: AnnotatedImage, dataset: Any, classes: Container[str]
) -> str:
    """Say why mmdet does not learn an object; '' if it does."""
    if item.label not in classes:
        return OTHER_CLASS if item.label else NO_CATEGORY
    if not image.file:
        return NO_IMAGE
    filters = {} if dataset.test_mode else dataset.filter_cfg or {}
    least = filters.get('min_size', 0)
    if image.size and min(image.size) < least:
        return f'an image below filter_cfg.min_size={least}'
    entry = item.entry
    if is_of_coco(item) and min(entry['bbox'][2:]) < 1:
        return 'a box below 1 px'
    left, top, right, bottom = item.box or (0, 0, 0, 0)
    least = getattr(dataset, 'bbox_min_size', None) or 0  # VOC's
    if min(right - left, bottom - top) < least:
        return f'a box below filter_cfg.bbox_min_size={least}'
    if entry.get('area', 1) <= 0:
        return 'area <= 0'
    flags = (k for k in ('iscrowd', 'ignore', 'difficult') if entry.get(k))
    return next((f'{key}=1' for key in flags), '')


def is_of_coco(item: Item) -> bool:
    """Tell whether mmdet leaves out an empty box, as in COCO's files."""
    return 'bbox' in item.entry


def lacks_mask(mask: Any, is_test: bool) -> bool:
    """Tell whether an object has no mask that a pipeline can load.

    In an evaluation its first polygon needs three points: by it, pycocotools
    tells what a mask is. In a training mmdet leaves out shorter ones.
    """
    return not mask or is_test and isinstance(mask, list) and len(mask[0]) < 6


def item_problem(item: Item, size: tuple[float, float] | None) -> str | None:
    """Say what is wrong with an object's box or mask."""
    problem = box_problem(item, size) if item.box else None
    if problem:
        box = f'{item.box} (left, top, right, bottom)'
        return f'has the box {box}, which {problem}'
    problem = mask_problem(item.mask, size) if item.mask and size else None
    if problem:
        return f'has the segmentation {cut(item.mask)}, which {problem}'
    return None


def box_problem(item: Item, size: tuple[float, float] | None) -> str | None:
    """Say what is wrong with an object's box."""
    left, top, right, bottom = item.box or (0, 0, 0, 0)
    if right < left or bottom < top:
        return 'has a negative size'
    if (right == left or bottom == top) and not is_of_coco(item):
        return 'is empty'
    width, height = size or (math.inf, math.inf)
    if left >= width or top >= height or right < 0 or bottom < 0:
        return f'lies outside of the image ({width}x{height})'
    return None
