# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the checks of data sets share."""

import logging
import os.path as osp
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.logging import print_log

from ..image_names import check_there
from ..transforms.headers import read_header
from ..transforms.loading import UnreadableImageError, loader_like

NUM_IMAGES = 20  # opened of each data set, spread over it
# Why an image's sides are not those of its annotation.
TURNED = (
    ' (an EXIF orientation turns it, and the annotation has the sides before '
    'that: if its boxes are those of the turned image, as viewers show it, '
    'exchange width and height in the annotation; if they are those of the '
    "image as stored, load it with color_type='color_ignore_orientation')"
)


def build(kind: Any, settings: Mapping, **others: Any) -> Any:
    """Build a data set that joins its paths, and reads nothing yet."""
    kwargs = {
        key: value
        for key, value in settings.items()
        if key not in ('type', '_scope_')
    }
    return kind(**{**kwargs, 'pipeline': [], 'lazy_init': True, **others})


def is_on_disk(settings: Mapping) -> bool:
    """Tell whether a data set's files are local ones."""
    backend = (settings.get('backend_args') or {}).get('backend', 'local')
    prefix = settings.get('data_prefix') or ''
    paths = [settings.get('data_root'), settings.get('ann_file')]
    paths += prefix.values() if isinstance(prefix, Mapping) else [prefix]
    is_local = backend in ('local', 'disk')
    return is_local and not any('://' in str(path) for path in paths)


def check_count(
    setting: str, count: int, where: str, classes: Sequence[str]
) -> None:
    """Check that a head has as many classes as a data set."""
    if count != len(classes):
        raise ValueError(
            f'{setting}={count}, but {where} has {len(classes)} classes '
            f'({short(classes)}): set {setting}={len(classes)}, or correct '
            f'the classes of {where} (its data_root, or metainfo=dict('
            'classes=...))'
        )


def check_images(
    names: Sequence[str],
    folder: str,
    setting: str,
    sizes: Sequence[tuple[float, float] | None] = (),
    steps: Sequence[Mapping] = (),
) -> None:
    """Check that images exist, can be read, and are as large as annotated.

    Args:
        names (Sequence[str]): The images.
        folder (str): The folder that these are below; '' for whole paths.
        setting (str): The setting that leads to them, for errors.
        sizes (Sequence[tuple | None]): (width, height) by the annotations, px.
        steps (Sequence[Mapping]): The pipeline, which says how the run
            decodes.

    Raises:
        FileNotFoundError: An image does not exist.
        ValueError: One cannot be read, or most have other sizes; of fewer
            this warns.
    """
    check_there(names, folder, setting)
    paths = [osp.join(folder, name) for name in names]
    load = loader_like(steps, value_range='percentiles')
    odd = []
    for path, size in zip_longest(paths, sizes):
        try:
            height, width, _ = load(dict(img_path=path))['img'].shape
        except UnreadableImageError as error:
            raise ValueError(
                f'{setting}: {error}; if the file is damaged, replace it'
            ) from error
        if size and tuple(size) != (width, height):
            odd.append(
                f'{path!r} is {width}x{height} px, its annotation says '
                f'{size[0]}x{size[1]}'
                + TURNED
                * (tuple(size) == (height, width) == stored_size(path))
            )
    if odd:
        text = (
            f'{setting}: {len(odd)} of {len(paths)} images opened differ in '
            f'size from their annotations, e.g. {odd[0]}: annotate the images '
            'as they are read, or put the annotated ones there'
        )
        if 2 * len(odd) > len(paths):
            raise ValueError(text)
        warn(text)


def stored_size(path: str) -> tuple[int, int] | None:
    """Return the (width, height) of a file's header, whatever EXIF says."""
    with open(path, 'rb') as file:
        header = read_header(file)
    return header.size if header else None


def need(
    path: str, setting: str, dataset: Any, is_folder: bool = False
) -> None:
    """Check that a file exists, or a folder if one is named."""
    found = not path or osp.isdir(path) if is_folder else osp.isfile(path)
    if not found:
        raise FileNotFoundError(
            f'{setting}: the {"folder" if is_folder else "file"} {path!r} '
            f'does not exist (data_root={dataset.data_root!r}): put it there, '
            'or correct the path or data_root'
        )


def spread(items: Sequence, count: int = NUM_IMAGES) -> list:
    """Return at most ``count`` items at even distances, the first among."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def short(items: Sequence, limit: int = 10) -> str:
    """List a few items, and say how many there are."""
    text = ', '.join(map(repr, items[:limit]))
    return text if len(items) <= limit else f'{text}, ... ({len(items)})'


def cut(value: Any) -> str:
    """Return the beginning of a value, for an error."""
    text = short([value])
    return text if len(text) <= 300 else f'{text[:300]}...'


def reason(error: Exception) -> str:
    """Return an error's text in a line, without CIFAR's advice: a download."""
    text = ' '.join(str(error).split())
    return text.partition(', you can specify `download')[0].rstrip('.')


def warn(text: str) -> None:
    """Warn in the run's log."""
    print_log(text, logger='current', level=logging.WARNING)
