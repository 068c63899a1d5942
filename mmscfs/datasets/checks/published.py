# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check that a published data set is complete; nothing is decoded.

``published.yml`` holds the layouts and totals. A reader yields the images of
one split, as the data set's class in mmpretrain or mmdet finds them, with the
classes of each, and notes in a :class:`SplitReport` what is wrong.

Example:
    >>> split = find_dataset('pets').splits[0]
    >>> problems(split, check_split(split, Path('data/Oxford-IIIT_Pets')))
    []
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples
from mmpretrain.datasets.utils import check_md5
from mmpretrain.registry import DATASETS

from ..image_files import check_inside
from .coco import read_coco
from .voc import read_xml

Track = Callable[[Iterable, str], Iterable]
Images = Iterator[tuple[Path, Iterable[str]]]  # with the classes of each
SYNSET = re.compile(r'n\d{8}')


class Split(NamedTuple):
    """A split as it was published."""

    name: str
    images: int | None  # None where they depend on a choice of classes
    classes: int
    reader: str  # one of READERS
    settings: dict[str, Any]  # of the reader
    per_class: Sequence[int] = ()  # fewest and most images of a class


class KnownDataset(NamedTuple):
    """A data set and where the configs look for it."""

    name: str
    title: str
    root: str
    layout: str  # below the root
    splits: tuple[Split, ...]


@dataclass
class SplitReport:
    """What was found of one split below ``root``."""

    root: Path
    images: int = 0  # there, and not empty
    per_class: Counter[str] = field(default_factory=Counter)  # of these
    known_classes: set[str] = field(default_factory=set)  # that should be
    missing: list[str] = field(default_factory=list)  # files and folders
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has(self, path: Path) -> bool:
        """Tell whether a file is there and not empty; note it if not."""
        try:
            size = os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            self.missing.append(os.path.relpath(path, self.root))
            return False
        if not size:
            self.damaged.append(os.path.relpath(path, self.root))
        return size > 0

    @property
    def missing_classes(self) -> list[str]:
        """Classes that should have images, and have none."""
        return sorted(self.known_classes - set(self.per_class))


@lru_cache
def known_datasets() -> tuple[KnownDataset, ...]:
    """Return the data sets of ``published.yml``."""
    text = (resources.files(__package__) / 'published.yml').read_text('utf-8')
    return tuple(
        KnownDataset(
            name=name,
            splits=tuple(Split(**split) for split in entry.pop('splits')),
            **entry,
        )
        for name, entry in yaml.safe_load(text).items()
    )


def find_dataset(name: str) -> KnownDataset:
    """Return a data set by its name.

    Raises:
        ValueError: No data set has this name.
    """
    datasets = {dataset.name: dataset for dataset in known_datasets()}
    if name not in datasets:
        names = ', '.join(datasets)
        raise ValueError(f'unknown data set {name!r}: choose one of {names}')
    return datasets[name]


def check_split(
    split: Split, root: Path, track: Track = lambda items, text: items
) -> SplitReport:
    """Go through a split below ``root``.

    Args:
        split (Split): One of a :class:`KnownDataset`.
        root (Path): Where the data set is.
        track (Track): Shows the progress: returns what it gets, the images
            and a description of them. Defaults to nothing shown.
    """
    report = SplitReport(root)
    images = READERS[split.reader](report, **split.settings)
    for path, classes in track(images, split.name):
        report.known_classes.update(classes)
        if report.has(path):
            report.images += 1
            report.per_class.update(classes)
    return report


def problems(split: Split, report: SplitReport) -> list[str]:
    """Say in words what is wrong with a split; an empty list: nothing."""
    found = []
    counts = (
        ('images', report.images, split.images),
        ('classes', len(report.per_class), split.classes),
    )
    for what, count, known in counts:
        if known is not None and count != known:
            found.append(f'{count:,} {what} instead of {known:,}')
    low, high = split.per_class or (0, float('inf'))
    expected = low if low == high else f'{low} to {high:,}'
    odd = [
        f'{name} ({count:,})'
        for name, count in sorted(report.per_class.items())
        if not low <= count <= high
    ]
    for what, names in (
        ('missing', report.missing),
        ('empty or damaged', report.damaged),
        ('classes without images', report.missing_classes),
        (f'classes with other than {expected} images', odd),
    ):
        if names:
            found.append(f'{what} ({len(names):,}): {first(names)}')
    return found + report.notes


def read_imagenet(report: SplitReport, split: str) -> Images:
    """Read ImageNet from its list of files, or else from class folders.

    Args:
        report (SplitReport): For what is wrong.
        split (str): "train" or "val"; both have the same class folders.
    """
    if (report.root / 'meta' / f'{split}.txt').is_file():
        yield from read_list(report, split, f'meta/{split}.txt')
        return
    folder = report.root / split
    if not folder.is_dir():
        report.missing.append(f'{split}/')
        return
    listing = report.root / 'meta/classes.txt'
    if listing.is_file():
        report.known_classes |= set(read_text(listing).split())
    for part in ('train', 'val'):
        if (report.root / part).is_dir():
            report.known_classes |= {*find_folders(str(report.root / part))[0]}
    names, _ = find_folders(str(folder))
    if not names:
        report.notes.append(
            f'{split}/ has no folder for each class: sort the images into '
            f'such folders, or list them in meta/{split}.txt, a line "FILE '
            'LABEL" each'
        )
    for name in names:
        files, _ = get_samples(str(folder / name), None, is_image)
        yield from ((folder / name / file, [name]) for file in files)


def is_image(name: str) -> bool:
    """Tell by its ending whether mmpretrain takes a file for an image."""
    return name.lower().endswith(ImageNet.IMG_EXTENSIONS)


def read_list(
    report: SplitReport, split: str, ann_file: str, num_classes: int = 1000
) -> Images:
    """Read a list of files and labels, below the folder ``split``.

    Where the names tell the class, the labels must be the places of the
    classes in alphabetical order, which mmpretrain's names of them follow.
    """
    path = report.root / ann_file
    if not report.has(path):
        return
    images: dict[Path, list[str]] = {}
    labels = defaultdict(set)
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
            report.notes.append(
                f'line {number} of {ann_file}, {line!r}, is not "FILE LABEL"'
            )
            return
        synset = SYNSET.match(name)
        if synset:
            labels[synset[0]].add(label)
        images[report.root / split / name] = [synset[0] if synset else label]
    if len(images) < len(lines):
        twice = len(lines) - len(images)
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
    yield from images.items()


def read_annotated(
    report: SplitReport,
    kind: str,
    split: str,
    needed: Sequence[str],
    instead: str = '',
) -> Images:
    """Read a data set of mmpretrain that has annotation files.

    Args:
        report (SplitReport): For what is wrong.
        kind (str): The data set's class.
        split (str): Its name of the split.
        needed (Sequence[str]): Annotation files without which it fails.
        instead (str): One that replaces them if it exists. Defaults to ''.
    """
    if instead and (report.root / instead).exists():
        needed = [instead]
    if not all([report.has(report.root / name) for name in needed]):
        return
    found: Any = DATASETS.get(kind)
    names = found.METAINFO['classes']
    report.known_classes = set(names)
    try:
        dataset = found(
            data_root=str(report.root), split=split, lazy_init=True
        )
        images = [
            (Path(image['img_path']), [names[image['gt_label']]])
            for image in dataset.load_data_list()
        ]
    except Exception as error:  # whatever a damaged file leads its parser to
        report.damaged += needed
        report.notes.append(
            f'mmpretrain cannot read the annotations of {split}: '
            f'{type(error).__name__}: {error}'
        )
        return
    yield from images


def read_cifar(
    report: SplitReport, kind: str, split: str, images_per_file: int
) -> Images:
    """Read CIFAR's archives: their checksums say what they hold."""
    found: Any = DATASETS.get(kind)
    files = found.train_list if split == 'train' else found.test_list
    for file, md5 in files:
        path = report.root / found.base_folder / file
        if not report.has(path):
            continue
        if not check_md5(str(path), md5):
            report.damaged.append(os.path.relpath(path, report.root))
            continue
        report.images += images_per_file - 1  # check_split counts the file
        yield path, found.METAINFO['classes']


def read_coco_images(
    report: SplitReport, ann_file: str, folder: str
) -> Images:
    """Read COCO's images and categories from its annotations."""
    path = report.root / ann_file
    if not report.has(path):
        return
    try:
        coco = read_coco(str(path), ann_file)
        for image in coco['images']:
            check_inside(image['file_name'], ann_file, folder)
    except ValueError as error:
        report.damaged.append(ann_file)
        report.notes.append(str(error))
        return
    names = [category['name'] for category in coco['categories']]
    for image in coco['images']:
        yield report.root / folder / image['file_name'], names


def read_voc_images(report: SplitReport, year: str, listing: str) -> Images:
    """Read Pascal VOC: every image needs its annotation.

    Args:
        report (SplitReport): For what is wrong.
        year (str): Folder of the year, "" if the root is it.
        listing (str): Name of the list of images, e.g. "trainval".
    """
    root = report.root / year
    path = root / 'ImageSets/Main' / f'{listing}.txt'
    if not report.has(path):
        return
    for name in read_text(path).split():
        xml = root / 'Annotations' / f'{name}.xml'
        try:
            check_inside(name, f'{listing}.txt', 'Annotations')
            if not report.has(xml):
                continue
            top = read_xml(xml)
        except ValueError as error:
            report.notes.append(str(error))
            continue
        names = {str(item.text) for item in top.iterfind('object/name')}
        yield root / 'JPEGImages' / f'{name}.jpg', names


READERS: dict[str, Callable[..., Images]] = {
    'imagenet': read_imagenet,
    'list': read_list,
    'annotated': read_annotated,
    'cifar': read_cifar,
    'coco': read_coco_images,
    'voc': read_voc_images,
}


def read_text(path: Path) -> str:
    """Read a list; what is not text becomes lines that are not entries."""
    return path.read_text('utf-8', errors='replace')


def first(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few."""
    text = ', '.join(names[:limit])
    return text if len(names) <= limit else f'{text}, ...'
