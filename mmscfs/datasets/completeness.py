# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Count the images and classes of a data set, and note what is missing.

A reader goes through one split as the data set's class in mmpretrain or mmdet
would, and fills a :class:`SplitReport`. Nothing is decoded.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CIFAR10, ImageNet
from mmpretrain.datasets.utils import check_md5

from .paths import check_inside
from .voc_file import read_xml

Track = Callable[[Sequence, str], Iterable]
SYNSET = re.compile(r'n\d{8}')


@dataclass
class SplitReport:
    """What was found of one split below ``root``."""

    root: Path
    images: int = 0  # there, and not empty
    classes: set[str] = field(default_factory=set)  # of these images
    known_classes: set[str] = field(default_factory=set)  # that should be
    missing: list[str] = field(default_factory=list)  # files and folders
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has(self, path: Path | str) -> bool:
        """Tell whether a file is there and not empty; note it if not."""
        try:
            size = os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            self.missing.append(os.path.relpath(path, self.root))
            return False
        if not size:
            self.damaged.append(os.path.relpath(path, self.root))
        return size > 0

    def add(self, images: Iterable[tuple[Path | str, str]]) -> None:
        """Count images, given as (path, class)."""
        for path, name in images:
            self.known_classes.add(name)
            if self.has(path):
                self.images += 1
                self.classes.add(name)

    @property
    def missing_classes(self) -> list[str]:
        """Classes that should have images, and have none."""
        return sorted(self.known_classes - self.classes)


def read_folders(
    report: SplitReport,
    track: Track,
    split: str,
    other: str,
    per_class: tuple[int, int],
) -> None:
    """Read ImageNet's images from a folder for each class.

    Args:
        report (SplitReport): To fill.
        track (Track): Shows the progress.
        split (str): Folder of the class folders.
        other (str): That of the other split, which has the same classes.
        per_class (tuple[int, int]): Fewest and most images of a class.
    """
    folder = report.root / split
    if not folder.is_dir():
        report.missing.append(f'{split}/')
        return
    names = subfolders(folder)
    listing = report.root / 'meta/classes.txt'
    if listing.is_file():
        report.known_classes |= set(read_text(listing).split())
    report.known_classes |= {*names, *subfolders(report.root / other)}
    if not names:
        report.notes.append(
            f'{split}/ has no folder for each class: sort the images into '
            f'such folders, or list them in meta/{split}.txt, a line "FILE '
            'LABEL" each'
        )
    odd = []
    for name in track(names, split):
        before = report.images
        for path, _, files in os.walk(folder / name, followlinks=True):
            report.add(
                (os.path.join(path, file), name)
                for file in sorted(files)
                if file.lower().endswith(ImageNet.IMG_EXTENSIONS)
                and not file.startswith('.')
            )
        count = report.images - before
        if not per_class[0] <= count <= per_class[1]:
            odd.append(f'{name} ({count:,})')
    if odd:
        low, high = per_class
        report.notes.append(
            'classes with other than '
            f'{low if low == high else f"{low} to {high:,}"} images '
            f'({len(odd):,}): {first(odd)}'
        )


def subfolders(folder: Path) -> list[str]:
    """Return the names of the class folders in a folder, sorted."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith('.')
        )


def read_list(
    report: SplitReport,
    track: Track,
    split: str,
    ann_file: str,
    num_classes: int = 1000,
    remedy: str = '',
) -> None:
    """Read a list of files and labels, below the folder ``split``.

    Where the names tell the class, the labels must be the places of the
    classes in alphabetical order, which mmpretrain's names of them follow.
    """
    path = report.root / ann_file
    if not report.has(path):
        if remedy:
            report.notes.append(remedy)
        return
    images, labels = [], defaultdict(set)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
            report.notes.append(
                f'line {number} of {ann_file}, {line!r}, is not "FILE LABEL"'
            )
            return
        synset = SYNSET.match(name)
        if synset:
            labels[synset[0]].add(label)
        images.append(
            (report.root / split / name, synset[0] if synset else label)
        )
    twice = len(images) - len({path for path, _ in images})
    if twice:
        report.notes.append(f'{ann_file} names files twice ({twice:,})')
    wrong = [
        synset
        for place, synset in enumerate(sorted(labels))
        if labels[synset] != {str(place)}
    ]
    if wrong and len(labels) == num_classes:
        report.notes.append(
            f'{ann_file} gives classes labels that are not their places in '
            f'alphabetical order ({len(wrong):,}): {first(wrong)}'
        )
    report.add(track(images, ann_file))


def read_imagenet(
    report: SplitReport,
    track: Track,
    split: str,
    other: str,
    per_class: tuple[int, int],
) -> None:
    """Read ImageNet from its list of files, or else from class folders."""
    if (report.root / 'meta' / f'{split}.txt').is_file():
        read_list(report, track, split, f'meta/{split}.txt')
    else:
        read_folders(report, track, split, other, per_class)


def read_annotated(
    report: SplitReport,
    track: Track,
    kind: type[BaseDataset],
    split: str,
    needed: Sequence[str],
) -> None:
    """Read a data set of mmpretrain that has annotation files.

    Args:
        report (SplitReport): To fill.
        track (Track): Shows the progress.
        kind (type): The data set's class.
        split (str): Its name of the split.
        needed (Sequence[str]): Annotation files without which it fails.
    """
    if not all([report.has(report.root / name) for name in needed]):
        return
    names = kind.METAINFO['classes']
    report.known_classes = set(names)
    try:
        dataset = kind(data_root=str(report.root), split=split, lazy_init=True)
        images = [
            (image['img_path'], names[image['gt_label']])
            for image in dataset.load_data_list()
        ]
    except Exception as error:  # whatever a damaged file leads its parser to
        report.damaged += needed
        report.notes.append(
            f'mmpretrain cannot read the annotations of {split}: '
            f'{type(error).__name__}: {error}'
        )
        return
    report.add(track(images, split))


def read_cars(
    report: SplitReport, track: Track, kind: type, split: str
) -> None:
    """Read Stanford Cars in either of its two layouts."""
    names = {
        'train': 'devkit/cars_train_annos.mat',
        'test': 'devkit/cars_test_annos_withlabels.mat',
    }
    both = 'cars_annos.mat'
    needed = both if (report.root / both).exists() else names[split]
    read_annotated(report, track, kind, split, [needed])


def read_cifar(
    report: SplitReport,
    track: Track,
    kind: type[CIFAR10],
    split: str,
    images_per_file: int,
) -> None:
    """Read CIFAR's archives: their checksums say what they hold."""
    files = kind.train_list if split == 'train' else kind.test_list
    for file, md5 in track(files, split):
        path = report.root / kind.base_folder / file
        if not report.has(path):
            continue
        if check_md5(str(path), md5):
            report.images += images_per_file
            report.classes = set(kind.METAINFO['classes'])
        else:
            report.damaged.append(os.path.relpath(path, report.root))


def read_coco(
    report: SplitReport, track: Track, ann_file: str, folder: str
) -> None:
    """Read COCO's images and categories from its annotations."""
    path = report.root / ann_file
    if not report.has(path):
        return
    try:
        coco: dict[str, Any] = json.loads(path.read_bytes())
        names = {category['name'] for category in coco['categories']}
        files = [image['file_name'] for image in coco['images']]
        for file in files:
            check_inside(file, ann_file, folder)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        report.damaged.append(ann_file)
        report.notes.append(f'{ann_file} is not COCO annotations: {error!r}')
        return
    report.classes = names
    for file in track(files, folder):
        report.images += report.has(report.root / folder / file)


def read_voc(
    report: SplitReport, track: Track, year: str, listing: str
) -> None:
    """Read Pascal VOC: every image needs its annotation.

    Args:
        report (SplitReport): To fill.
        track (Track): Shows the progress.
        year (str): Folder of the year, "" if the root is it.
        listing (str): Name of the list of images, e.g. "trainval".
    """
    root = report.root / year
    path = root / 'ImageSets/Main' / f'{listing}.txt'
    if not report.has(path):
        return
    for name in track(read_text(path).split(), f'{root.name} {listing}'):
        try:
            check_inside(name, f'{listing}.txt', 'Annotations')
        except ValueError as error:
            report.notes.append(str(error))
            continue
        xml = root / 'Annotations' / f'{name}.xml'
        has_image = report.has(root / 'JPEGImages' / f'{name}.jpg')
        if not report.has(xml):
            continue
        try:
            objects = read_xml(xml).iterfind('object/name')
        except ValueError:
            report.damaged.append(os.path.relpath(xml, report.root))
            continue
        if has_image:
            report.images += 1
            report.classes |= {str(item.text) for item in objects}


def read_text(path: Path) -> str:
    """Read a list; what is no text becomes lines that are no entries."""
    return path.read_text('utf-8', errors='replace')


def first(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few."""
    text = ', '.join(names[:limit])
    return text if len(names) <= limit else f'{text}, ...'
