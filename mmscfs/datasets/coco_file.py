# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read annotations in COCO's format, and check every entry."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .text import cut, warn

# What pycocotools can take, which may crash otherwise. It counts in 32 bits
# and draws a boundary in steps of 1/5 px, with 80 B a px.
MAX_SIDE = 2**20  # px; OpenCV reads no longer ones
MAX_AREA = 2**29  # px
MAX_BOUNDARY = 2**24  # px
MAX_CHARACTERS = 6  # of a run length as text
REACH = 10  # sides of an image that a polygon may lie outside of it


def is_key(value: Any) -> bool:
    """Tell whether a value can identify an entry."""
    return type(value) in (int, str)


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, finite and no text."""
    return type(value) in (int, float) and abs(value) < 1e15


def is_length(value: Any) -> bool:
    """Tell whether a value is a number of pixels."""
    return is_number(value) and value > 0


def is_text(value: Any) -> bool:
    return type(value) is str


# What mmdet and pycocotools read of every entry, and what it has to be.
NEEDED: dict[str, dict[str, Callable[[Any], bool]]] = {
    'images': dict(
        id=is_key, file_name=is_text, width=is_length, height=is_length
    ),
    'annotations': dict(
        id=is_key,
        image_id=is_key,
        category_id=is_key,
        bbox=lambda value: True,  # see check_box
        area=is_number,
    ),
    'categories': dict(id=is_key, name=is_text),
}
VALID: dict[Callable[[Any], bool], str] = {
    is_key: 'a whole number or a text',
    is_number: 'a finite number',
    is_length: 'a number > 0',
    is_text: 'a text',
}


def read_coco(path: str, where: str) -> dict:
    """Read a COCO file's images, annotations and categories.

    Args:
        path (str): The file.
        where (str): The setting of the data set that names it.

    Raises:
        ValueError: It is damaged, or an entry lacks something, or has it
            twice or of a wrong type.
    """
    setting = f'{where}.ann_file={path!r}'
    coco = read_json(path, setting)
    if not isinstance(coco, dict):
        raise ValueError(
            f'{setting} holds a {type(coco).__name__}, no COCO annotations'
        )
    # Those of test images have none.
    coco.setdefault('annotations', [])
    for part, keys in NEEDED.items():
        entries = coco.get(part)
        if entries is not None and not isinstance(entries, list):
            raise ValueError(
                f'{setting}: {part!r} is a {type(entries).__name__}, '
                'no list of entries'
            )
        for entry in entries or []:
            check_entry(entry, keys, f'{setting} has an entry of {part!r}')
        check_unique(entries or [], 'id', f'{setting}: {part!r}')
    for part in ('images', 'categories'):
        if not coco.get(part):
            raise ValueError(
                f'{setting} has no {part}: its list {part!r} is empty or '
                'missing; name the annotations that belong to the images'
            )
    check_unique(coco['categories'], 'name', f"{setting}: 'categories'")
    coco['annotations'] = coco['annotations'] or []
    return coco


def read_json(path: str, setting: str) -> Any:
    """Read a json file.

    Raises:
        ValueError: It is damaged, or nested deeper than it can be read.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{setting} is damaged or no json: {error.msg} at line '
            f'{error.lineno}, column {error.colno}: make or copy it again'
        ) from error
    except RecursionError as error:
        raise ValueError(
            f'{setting} is nested too deep for COCO annotations: make or '
            'copy it again'
        ) from error
    except ValueError as error:  # no text, or a number of 4300 digits
        raise ValueError(f'{setting} is no json: {error}') from error


def check_entry(
    entry: Any, keys: Mapping[str, Callable[[Any], bool]], what: str
) -> None:
    """Check that an entry has what it needs.

    Raises:
        ValueError: Something is missing, or of a wrong type.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{what} that is no object: {cut(entry)}')
    lost = [key for key in keys if key not in entry]
    if lost:
        raise ValueError(f'{what} without {", ".join(lost)}: {cut(entry)}')
    for key, is_valid in keys.items():
        if not is_valid(entry[key]):
            raise ValueError(
                f'{what} with {key}={cut(entry[key])}, which must be '
                f'{VALID[is_valid]}: {cut(entry)}'
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
                f'{cut(entry)}: give each its own'
            )
        seen.add(entry[key])


def check_coco_boxes(coco: Mapping, known: set[str], path: str) -> int:
    """Check every box and mask; return how many are of known classes.

    Boxes without width or height, of which COCO itself has some, and
    polygons of fewer than three points are not refused: mmdet leaves them
    out. So it does with annotations of images or categories that the file
    does not have, of which this warns.

    Args:
        coco (Mapping): What :func:`read_coco` returned.
        known (set[str]): The classes of the data set.
        path (str): The file, for errors.

    Raises:
        ValueError: A box or mask is malformed, or outside of its image.
    """
    images = {image['id']: image for image in coco['images']}
    ids = {c['id'] for c in coco['categories']}
    known_ids = {c['id'] for c in coco['categories'] if c['name'] in known}
    count = 0
    beyond, of_no_image, of_no_category = [], [], []
    for item in coco['annotations']:
        image = images.get(item['image_id'])
        if image is None:
            of_no_image.append(item)
            continue
        name = 'bbox'
        problem = box_problem(item['bbox'], image)
        if not problem:
            name = 'segmentation'
            problem = mask_problem(item.get(name), image)
        if problem:
            raise ValueError(
                f'{path}: the {name} {cut(item[name])} of image '
                f'{image["file_name"]!r} (annotation {item["id"]}) {problem}: '
                'correct or remove it; a COCO bbox is [left, top, width, '
                'height] in pixels'
            )
        x, y, w, h = item['bbox']
        if x + w > image['width'] + 2 or y + h > image['height'] + 2:
            beyond.append(image['file_name'])
        if item['category_id'] not in ids:
            of_no_category.append(item)
        count += item['category_id'] in known_ids
    total = len(coco['annotations'])
    if beyond:
        warn(
            f'{path}: {len(beyond)} of {total} boxes reach '
            f'beyond their image (e.g. in {beyond[0]!r}): is bbox [left, '
            'top, width, height], and not [left, top, right, bottom]?'
        )
    for items, key in (
        (of_no_image, 'image_id'),
        (of_no_category, 'category_id'),
    ):
        if items:
            warn(
                f'{path}: {len(items)} of {total} annotations are left out, '
                f'their {key} is not in the file (e.g. {key}='
                f'{items[0][key]!r} of annotation {items[0]["id"]})'
            )
    return count


def box_problem(box: Any, image: Mapping) -> str | None:
    """Say what is wrong with a box [x, y, w, h]."""
    width, height = image['width'], image['height']
    if not isinstance(box, list) or len(box) != 4:
        return 'is not [x, y, width, height]'
    if not all(map(is_number, box)):
        return 'is not [x, y, width, height] in finite numbers'
    x, y, w, h = box
    if w < 0 or h < 0:
        return 'has a negative size'
    if x >= width or y >= height or x + w < 0 or y + h < 0:
        return f'lies outside of the image ({width}x{height})'
    return None


def mask_problem(mask: Any, image: Mapping) -> str | None:
    """Say what is wrong with a mask: polygons, runs of pixels, or none."""
    if not mask:
        return None
    if isinstance(mask, list):
        return polygons_problem(mask, image)
    if not isinstance(mask, dict):
        return 'is neither polygons nor run lengths'
    size, counts = mask.get('size'), mask.get('counts')
    if size != [image['height'], image['width']]:
        return (
            f'has size={cut(size)} instead of [height, width] of the image, '
            f'{[image["height"], image["width"]]}'
        )
    if size[0] * size[1] >= MAX_AREA:
        return f'is of {size[0] * size[1]} pixels, more than a mask can have'
    if isinstance(counts, str):
        counts = unpack(counts)
    if not isinstance(counts, list) or not all(
        type(run) is int and run >= 0 for run in counts
    ):
        return 'has counts that are no run lengths'
    if sum(counts) != size[0] * size[1]:
        return (
            f'has run lengths of {sum(counts)} pixels in all instead of '
            f'{size[0] * size[1]}'
        )
    return None


def unpack(text: str) -> list[int] | None:
    """Return the run lengths in COCO's compressed text, None if it has none.

    A character has six bits, from "0" on: five of a number, the lowest first,
    and whether more follow. Numbers are signed. From the fourth on each is
    the difference to the run before the last.
    """
    codes = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8)
    bits = codes.astype(np.int64) - ord('0')
    ends = np.flatnonzero((bits & 32) == 0)
    if not bits.size or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_CHARACTERS:
        return None
    places = np.arange(bits.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((bits & 31) << 5 * places, starts)
    runs -= np.where(bits[ends] & 16, 1 << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = runs[first::2].cumsum()
    return runs.tolist()


def polygons_problem(polygons: list, image: Mapping) -> str | None:
    """Say what is wrong with polygons [x, y, x, y, ...]."""
    reach = REACH * min(max(image['width'], image['height']), MAX_SIDE)
    for polygon in polygons:
        if not isinstance(polygon, list):
            return 'is no list of polygons [[x, y, x, y, ...], ...]'
        if len(polygon) % 2:
            return (
                f'has a polygon of {len(polygon)} coordinates, an odd number'
            )
        try:
            is_finite = math.isfinite(sum(polygon))  # much faster than each
        except (TypeError, OverflowError):
            is_finite = False
        if not is_finite:
            return 'has a polygon whose coordinates are not finite numbers'
        low, high = min(polygon, default=0), max(polygon, default=0)
        if low < -reach or high > reach:
            return (
                f'has a polygon with the coordinate '
                f'{high if high > reach else low}, far outside of the image '
                f'({image["width"]}x{image["height"]})'
            )
        # It is at most half of this, so nearly none has to be measured.
        if len(polygon) * (high - low) > 2 * MAX_BOUNDARY:
            length = boundary(polygon)
            if length > MAX_BOUNDARY:
                return (
                    f'has a polygon with a boundary of {length:.0f} pixels, '
                    f'more than {MAX_BOUNDARY}'
                )
    return None


def boundary(polygon: Sequence[float]) -> float:
    """Return a polygon's length in px, along the longer axis of each side."""
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(1).sum())
