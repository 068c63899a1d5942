# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check that the labels of data sets fit each other and the model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .text import short


class Labels(NamedTuple):
    """What the labels of a data set are."""

    where: str  # the path of its config
    present: list[int]  # those of its images, sorted
    classes: list[str] | None  # all names, if known


def labels_of(
    images: Sequence[Mapping], classes: Sequence[str] | None, where: str
) -> Labels:
    """Collect the labels of images, of which each has one or a list.

    Raises:
        ValueError: One is missing, negative, or beyond the classes.
    """
    labels: set[Any] = set()
    for image in images:
        label = image.get('gt_label')
        labels |= {*label} if isinstance(label, list) else {label}
    count = len(classes) if classes is not None else float('inf')
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < count:
            of = '' if classes is None else f' of the {count} classes'
            raise ValueError(
                f'{where} has an image with the label {label!r}, which is no '
                f'number{of} from 0 up: correct its list, ann_file'
            )
    names = None if classes is None else list(classes)
    return Labels(where, sorted(labels), names)


def check_num_classes(labels: Labels, num_classes: int) -> None:
    """Check the number of classes of the model's head.

    Raises:
        ValueError: It is not that of the data set.
    """
    where, largest = labels.where, labels.present[-1]
    if labels.classes is not None and len(labels.classes) != num_classes:
        count = len(labels.classes)
        raise ValueError(
            f'model.head.num_classes={num_classes}, but {where} has {count} '
            f'classes ({short(labels.classes)}): set '
            f'model.head.num_classes={count}, or correct {where}.data_root'
        )
    if largest >= num_classes:
        raise ValueError(
            f'model.head.num_classes={num_classes}, but {where} has the '
            f'label {largest}: labels count from 0, so set '
            f'model.head.num_classes={largest + 1} or more'
        )


def compare(taught: Sequence[Labels], asked: Labels) -> None:
    """Check that the classes of an evaluation are known, by the same labels.

    Args:
        taught (Sequence[Labels]): The data sets that are learned from.
        asked (Labels): The one that is evaluated.

    Raises:
        ValueError: They do not know a class, or number them differently.
    """
    if not taught:
        return
    classes = [part.classes for part in (*taught, asked)]
    has_names = all(names is not None for names in classes)
    own = asked.classes or []
    names = {i: own[i] if has_names else i for i in asked.present}
    if has_names and any(c != asked.classes for c in classes):
        known = {
            (part.classes or [])[i] for part in taught for i in part.present
        }
        lacking = [name for name in names.values() if name not in known]
    else:
        known = {i for part in taught for i in part.present}
        lacking = [name for i, name in names.items() if i not in known]
    places = ' and '.join(part.where for part in taught)
    if lacking:
        raise ValueError(
            f'{asked.where} has classes without an image in {places}: '
            f'{short(lacking)}; take both from one data set, and complete it'
        )
    for part in taught if has_names else ():
        moved = [
            name
            for i, name in names.items()
            if (part.classes or [])[i : i + 1] != [name]
        ]
        if moved:
            raise ValueError(
                f'{asked.where} and {part.where} number their classes '
                f'differently, e.g. {moved[0]!r}: labels are the places of '
                'the class folders in alphabetical order, so both need the '
                'same folders'
            )
