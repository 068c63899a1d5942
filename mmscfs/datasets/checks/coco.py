# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read annotations in COCO's format."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .annotations import AnnotatedImage, Annotations, Item, check_entry
from .common import cut, warn


def find_coco(dataset: Any, where: str) -> Annotations:
    """Read the annotations of mmdet's data set."""
    if 'img' not in dataset.data_prefix:
        raise ValueError(
            f'{where}.data_prefix={dict(dataset.data_prefix)} must name the '
            "folder of the images, e.g. dict(img='train2017/')"
        )
    path = dataset.ann_file
    images, names = read_coco(
        path, f'{where}.ann_file={path!r}', not dataset.test_mode
    )
    folder = dataset.data_prefix['img']
    return Annotations(images, names, folder, f'{where}.data_prefix.img')


def read_coco(
    path: str, setting: str, is_training: bool = True
) -> tuple[list[AnnotatedImage], list[str]]:
    """Read a file of COCO's format, which ``setting`` names in errors.

    Except in a training pycocotools reads it too, and needs ``iscrowd``.

    Returns:
        tuple: The images, the last with the annotations of images that the
        file lacks; and the names of the categories.

    Raises:
        ValueError: It is damaged, or an entry lacks something, or has it
            twice or of a wrong type.
    """
    coco = read_json(path, setting)
    # Those of test images have none.
    coco['annotations'] = coco.get('annotations') or []
    optional = ('ignore', 'iscrowd') if is_training else ('ignore',)
    for part in ('images', 'annotations', 'categories'):
        entries = coco.get(part) or []
        if not isinstance(entries, list):
            raise ValueError(
                f'{setting}: {part!r} is a {type(entries).__name__} instead '
                'of a list of entries'
            )
        for entry in entries:
            check_entry(entry, part, setting, optional)
        check_unique(entries, 'id', f'{setting}: {part!r}')
        if not entries and part != 'annotations':
            raise ValueError(
                f'{setting} has no {part}: its list {part!r} is empty or '
                'missing; name the annotations that belong to the images'
            )
    check_unique(coco['categories'], 'name', f"{setting}: 'categories'")
    images = {}
    for entry in coco['images']:
        images[entry['id']] = AnnotatedImage(
            setting, entry['file_name'], (entry['width'], entry['height']), []
        )
    for entry in () if is_training else coco['annotations']:
        if isinstance(entry['id'], str) and not entry['id'].isdecimal():
            raise ValueError(
                f"{setting}: 'annotations' has id={cut(entry['id'])}, which "
                'pycocotools takes for a number after an evaluation: number '
                'the annotations from 1'
            )
    if not is_training and any(a['id'] == 0 for a in coco['annotations']):
        warn(
            f'{setting} has an annotation with id=0, which pycocotools never '
            'counts as found: number the annotations from 1'
        )
    names = {c['id']: c['name'] for c in coco['categories']}
    strays = AnnotatedImage(setting, '', None, [])
    for entry in coco['annotations']:
        image = images.get(entry['image_id'], strays)
        x, y, w, h = entry['bbox']
        item = Item(
            entry=entry,
            label=names.get(entry['category_id']),
            box=(x, y, x + w, y + h),
            mask=entry.get('segmentation'),
        )
        image.items.append(item)
    return [*images.values(), strays], [*names.values()]


def read_json(path: str, setting: str) -> dict:
    """Return the object that a JSON file holds."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        raise ValueError(
            f'{setting} is damaged or not JSON: '
            f'{"nested too deep" if is_deep else error}. Make or copy it again'
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f'{setting} holds a {type(content).__name__} instead of an object '
            'with images, annotations and categories'
        )
    return content


def check_unique(entries: Sequence[Mapping], key: str, what: str) -> None:
    """Check that no two entries are the same: a later replaces the first.

    Nor of several types, which pycocotools cannot sort after an evaluation.
    """
    if len({isinstance(entry[key], str) for entry in entries}) > 1:
        raise ValueError(
            f'{what} has numbers and texts as {key}, e.g. in '
            f'{cut(entries[0])}: write all of them as numbers'
        )
    seen = set()
    for entry in entries:
        if entry[key] in seen:
            raise ValueError(
                f'{what} has {key}={entry[key]!r} twice, the second time in '
                f'{cut(entry)}: give each a different one'
            )
        seen.add(entry[key])
