# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check that a published data set is complete, and images can be decoded.

``published.yml`` holds where each data set is and how much it has. What finds
its images is mmpretrain's class, and for COCO and VOC what the checks before
a run read.

Example:
    >>> pets = known_datasets()['pets']
    >>> train, test = check_published(pets, Path(pets['root']))
    >>> train.problems()
    ['3,679 images instead of 3,680', 'missing (1): images/Abyssinian_1.jpg']
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import yaml
from mmpretrain.registry import DATASETS

from ..image_files import ImageFiles
from ..transforms.loading import LoadImage, UnreadableImageError
from .coco import read_coco
from .common import reason, spread
from .voc import read_names, read_voc

SHOWN = 5  # of the names of what is wrong
Images = Sequence[tuple[str, Iterable[str]]]  # paths and classes of images
Track = Callable[[Sequence, str], Iterable]


@dataclass
class SplitReport:
    """What was found of a split, beside what there should be."""

    name: str
    root: Path
    known_images: int | None  # None where they depend on a choice of classes
    known_classes: int
    per_class: Sequence[float] = (0, math.inf)  # fewest and most of a class
    images: int = 0  # there, and not empty
    counts: Counter[str] = field(default_factory=Counter)  # by their classes
    absent: list[str] = field(default_factory=list)  # classes of other splits
    missing: list[str] = field(default_factory=list)  # files and folders
    decoded: int = 0  # images
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has(self, path: str | Path) -> bool:
        """Tell whether a file is there and not empty; note it if not."""
        try:
            size = os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            self.missing.append(os.path.relpath(path, self.root))
            return False
        if not size:
            self.damaged.append(os.path.relpath(path, self.root))
        return size > 0

    def problems(self) -> list[str]:
        """Say in words what is wrong; an empty list: nothing."""
        found = [
            f'{count:,} {what} instead of {known:,}'
            for what, count, known in (
                ('images', self.images, self.known_images),
                ('classes', len(self.counts), self.known_classes),
            )
            if known is not None and count != known
        ]
        low, high = self.per_class
        odd = [
            f'{name} ({count:,})'
            for name, count in sorted(self.counts.items())
            if not low <= count <= high
        ]
        for what, names in (
            ('missing', self.missing),
            ('empty or damaged', self.damaged),
            ('classes without images', self.absent),
            (f'classes of fewer than {low} or more than {high} images', odd),
        ):
            if names:
                more = ', ...' * (len(names) > SHOWN)
                few = ', '.join(names[:SHOWN]) + more
                found.append(f'{what} ({len(names):,}): {few}')
        return found + self.notes


@lru_cache
def known_datasets() -> dict[str, dict[str, Any]]:
    """Return what ``published.yml`` says, by the names of data sets."""
    text = (resources.files(__package__) / 'published.yml').read_text('utf-8')
    return yaml.safe_load(text)


def check_published(
    dataset: Mapping[str, Any],
    root: Path,
    track: Track = lambda images, text: images,
    decode: int = 0,
) -> list[SplitReport]:
    """Go through a data set.

    Args:
        dataset (Mapping): One of :func:`known_datasets`.
        root (Path): Where it is.
        track (Track): Shows the progress: returns what it gets, the images
            and a description of them. Defaults to nothing shown.
        decode (int): How many images of each split to decode, spread over
            it. Defaults to 0.

    Returns:
        list[SplitReport]: One for each split.
    """
    reports = []
    for name, split in dataset['splits'].items():
        settings = dict(split=name) | dataset['dataset'] | split
        report = SplitReport(
            name,
            root,
            settings.pop('images'),
            dataset['classes'],
            settings.pop('per_class', (0, math.inf)),
        )
        reports.append(report)
        find = FINDERS.get(settings['type'], find_images)
        try:
            images = find(report, **settings)
        except Exception as error:  # whatever a damaged file leads to
            path = getattr(error, 'filename', None)
            if path and isinstance(error, FileNotFoundError):
                report.has(path)
            else:
                report.notes.append(
                    f'the images cannot be listed ({type(error).__name__}): '
                    f'{reason(error)}'
                )
            continue
        paths = [path for path, _ in images if path]
        if twice := len(paths) - len(set(paths)):
            report.notes.append(f'images are listed twice ({twice:,})')
        for path, classes in track(images, name):
            if not path or report.has(path):
                report.images += 1
                report.counts.update(classes)
        here = [path for path in paths if Path(path).is_file()]
        decode_images(report, spread(here, decode), track)
    for report in reports:  # all splits have the same classes, by any name
        own = report.counts.keys()
        alike = [r.counts.keys() for r in reports if r.counts.keys() & own]
        report.absent = sorted(set().union(*alike) - own)
    return reports


def own_images(folder: str) -> dict[str, Any]:
    """Return what ``published.yml`` would say of a folder of images."""
    return dict(
        title='images of a folder',
        root=folder,
        layout='',
        classes=0,
        dataset=dict(type='ImageFiles'),
        splits={'all': dict(images=None)},
    )


def decode_images(
    report: SplitReport, paths: Sequence[str], track: Track
) -> None:
    """Decode images in parallel, and note those that cannot be."""
    load = LoadImage()

    def problem(path: str) -> str:
        try:
            load(dict(img_path=path))
        except UnreadableImageError as error:
            return str(error)
        return ''

    # OpenCV decodes without Python's lock.
    with ThreadPool() as pool:
        found = pool.imap(problem, paths, chunksize=16)
        for path in track(paths, f'{report.name}: decode'):
            report.decoded += 1
            if text := next(found):
                report.damaged.append(os.path.relpath(path, report.root))
                report.notes.append(text)


def find_own(report: SplitReport, type: str, split: str) -> Images:
    """Find images as a pre-training does; they have no classes."""
    dataset = ImageFiles(data_root=str(report.root), lazy_init=True)
    return [(image['img_path'], ()) for image in dataset.load_data_list()]


def find_images(report: SplitReport, type: str, **settings: Any) -> Images:
    """Find the images as mmpretrain's class does; CIFAR's have no path."""
    kind: Any = DATASETS.get(type)
    dataset = kind(data_root=str(report.root), lazy_init=True, **settings)
    images = dataset.load_data_list()
    if names := dataset.metainfo.get('classes'):
        return [
            (i.get('img_path', ''), [names[i['gt_label']]]) for i in images
        ]
    # A list does not name the classes, but perhaps their folders do.
    start = len(os.path.join(dataset.img_prefix, ''))
    paths = [image['img_path'] for image in images]
    folders = [os.path.dirname(path[start:]) for path in paths]
    return [
        (path, [folder or str(image['gt_label'])])
        for path, folder, image in zip(paths, folders, images, strict=True)
    ]


def find_coco(report: SplitReport, type: str, split: str) -> Images:
    """Find COCO's images, and the classes of their annotations."""
    path = str(report.root / f'annotations/instances_{split}.json')
    images, _ = read_coco(path, path)
    return [
        (str(report.root / split / image.file), image.classes())
        for image in images
        if image.file
    ]


def find_voc(report: SplitReport, type: str, split: str) -> Images:
    """Find Pascal VOC's images; every one needs its annotation."""
    year, _, listing = split.rpartition('/')
    root = report.root / year
    path = str(root / f'ImageSets/Main/{listing}.txt')
    found = []
    for name in read_names(path, path, str(root)):
        xml = root / f'Annotations/{name}.xml'
        try:
            if report.has(xml):
                image = read_voc(str(xml), f'JPEGImages/{name}.jpg')
                found.append((str(root / image.file), image.classes()))
        except ValueError as error:
            report.notes.append(str(error))
    return found


FINDERS = {'COCO': find_coco, 'VOC': find_voc, 'ImageFiles': find_own}
