# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The data sets that the configs use: their layouts and known totals."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.dataset import BaseDataset
from mmpretrain.datasets import (
    CIFAR10,
    CIFAR100,
    CUB,
    FGVCAircraft,
    OxfordIIITPet,
    StanfordCars,
)

from .completeness import (
    SplitReport,
    Track,
    first,
    read_annotated,
    read_cars,
    read_cifar,
    read_coco,
    read_folders,
    read_imagenet,
    read_list,
    read_voc,
)

# ImageNet's smallest and largest class; all have 50 images in val.
TRAIN_PER_CLASS, VAL_PER_CLASS = (732, 1300), (50, 50)


class Split(NamedTuple):
    """A split as it was published."""

    name: str
    images: int | None  # None where they depend on a choice of classes
    classes: int
    read: Callable[[SplitReport, Track], None]


class KnownDataset(NamedTuple):
    """A data set and where the configs look for it."""

    name: str
    title: str
    root: str
    layout: str  # below the root
    splits: tuple[Split, ...]


def _imagenet(images: int | None, classes: int, reader: Callable) -> tuple:
    """Return ImageNet's train and val, of which val has 50 of each class."""
    train = partial(
        reader, split='train', other='val', per_class=TRAIN_PER_CLASS
    )
    val = partial(reader, split='val', other='train', per_class=VAL_PER_CLASS)
    return (
        Split('train', images, classes, train),
        Split('val', 50 * classes, classes, val),
    )


IN1K = _imagenet(1_281_167, 1000, read_imagenet)


def _semi_supervised(percent: int, images: int) -> KnownDataset:
    """Return ImageNet with the labels of a SimCLRv2 list."""
    ann_file = f'meta/train_{percent}percent.txt'
    remedy = (
        f'{ann_file} is made from {percent}percent.txt of SimCLRv2 by '
        'tools/dataset_converters/make_semi_supervised_list.py'
    )
    reader = partial(
        read_list, split='train', ann_file=ann_file, remedy=remedy
    )
    return KnownDataset(
        f'in1k-{percent}percent',
        f"ImageNet-1k with {percent}% of the labels, SimCLRv2's list",
        'data/imagenet',
        f"""\
meta/train_{percent}percent.txt    {images} lines: \
n01440764/n01440764_10026.JPEG 0
train/n01440764/*.JPEG      1000 folders
val/n01440764/*.JPEG        1000 folders""",
        (Split(f'train {percent}%', images, 1000, reader), IN1K[1]),
    )


def _annotated(
    kind: type[BaseDataset], split: str, images: int, needed: list
) -> Split:
    reader = partial(read_annotated, kind=kind, split=split, needed=needed)
    return Split(split, images, len(kind.METAINFO['classes']), reader)


def _cars(split: str, images: int) -> Split:
    reader = partial(read_cars, kind=StanfordCars, split=split)
    return Split(split, images, 196, reader)


def _cifar(kind: type[CIFAR10], classes: int) -> tuple[Split, ...]:
    return tuple(
        Split(
            split,
            images,
            classes,
            partial(
                read_cifar,
                kind=kind,
                split=split,
                images_per_file=images // len(files),
            ),
        )
        for split, images, files in (
            ('train', 50_000, kind.train_list),
            ('test', 10_000, kind.test_list),
        )
    )


def _coco(split: str, images: int) -> Split:
    ann_file = f'annotations/instances_{split}.json'
    reader = partial(read_coco, ann_file=ann_file, folder=split)
    return Split(split, images, 80, reader)


def _voc(year: str, listing: str, images: int) -> Split:
    reader = partial(read_voc, year=year, listing=listing)
    return Split(f'{year} {listing}'.strip(), images, 20, reader)


CUB_FILES = ['images.txt', 'image_class_labels.txt', 'train_test_split.txt']

KNOWN_DATASETS = (
    KnownDataset(
        'in1k',
        'ImageNet-1k (ILSVRC 2012)',
        'data/imagenet',
        """\
train/n01440764/n01440764_10026.JPEG             1000 folders
val/n01440764/ILSVRC2012_val_00000293.JPEG       1000 folders
or, without class folders in val,
val/ILSVRC2012_val_00000001.JPEG
meta/val.txt         50000 lines: ILSVRC2012_val_00000001.JPEG 65""",
        IN1K,
    ),
    KnownDataset(
        'in100',
        'ImageNet-100, 100 classes of ImageNet-1k',
        'data/imagenet100',
        """\
train/n01440764/n01440764_10026.JPEG             100 folders, or links
val/n01440764/ILSVRC2012_val_00000293.JPEG       100 folders, or links
meta/classes.txt     the 100 classes, if make_imagenet_subset.py made it""",
        _imagenet(None, 100, read_folders),
    ),
    _semi_supervised(1, 12_811),
    _semi_supervised(10, 128_116),
    KnownDataset(
        'coco',
        'COCO 2017',
        'data/coco',
        """\
annotations/instances_train2017.json
annotations/instances_val2017.json
train2017/000000000009.jpg
val2017/000000000139.jpg""",
        (_coco('train2017', 118_287), _coco('val2017', 5_000)),
    ),
    KnownDataset(
        'voc0712',
        'Pascal VOC 2007 and 2012',
        'data/VOCdevkit',
        """\
VOC2007/ImageSets/Main/trainval.txt, test.txt
VOC2007/Annotations/000005.xml
VOC2007/JPEGImages/000005.jpg
VOC2012/ImageSets/Main/trainval.txt
VOC2012/Annotations/2008_000002.xml
VOC2012/JPEGImages/2008_000002.jpg""",
        (
            _voc('VOC2007', 'trainval', 5_011),
            _voc('VOC2012', 'trainval', 11_540),
            _voc('VOC2007', 'test', 4_952),
        ),
    ),
    KnownDataset(
        'voc07',
        'Pascal VOC 2007',
        'data/VOCdevkit/VOC2007',
        """\
ImageSets/Main/trainval.txt, test.txt
Annotations/000005.xml
JPEGImages/000005.jpg""",
        (_voc('', 'trainval', 5_011), _voc('', 'test', 4_952)),
    ),
    KnownDataset(
        'cifar10',
        'CIFAR-10, Python version',
        'data/cifar10',
        """\
cifar-10-batches-py/data_batch_1 to data_batch_5
cifar-10-batches-py/test_batch""",
        _cifar(CIFAR10, 10),
    ),
    KnownDataset(
        'cifar100',
        'CIFAR-100, Python version',
        'data/cifar100',
        """\
cifar-100-python/train
cifar-100-python/test""",
        _cifar(CIFAR100, 100),
    ),
    KnownDataset(
        'cub200',
        'Caltech-UCSD Birds-200-2011',
        'data/CUB_200_2011',
        """\
images.txt
image_class_labels.txt
train_test_split.txt
images/001.Black_footed_Albatross/*.jpg          200 folders""",
        (
            _annotated(CUB, 'train', 5_994, CUB_FILES),
            _annotated(CUB, 'test', 5_794, CUB_FILES),
        ),
    ),
    KnownDataset(
        'cars',
        'Stanford Cars',
        'data/Stanford_Cars',
        """\
devkit/cars_train_annos.mat
devkit/cars_test_annos_withlabels.mat            a download of its own
cars_train/00001.jpg
cars_test/00001.jpg
or, as one archive,
cars_annos.mat
car_ims/000001.jpg""",
        (_cars('train', 8_144), _cars('test', 8_041)),
    ),
    KnownDataset(
        'aircraft',
        'FGVC-Aircraft 2013b',
        'data/fgvc-aircraft-2013b',
        """\
data/images_variant_trainval.txt
data/images_variant_test.txt
data/images/0034309.jpg""",
        tuple(
            _annotated(
                FGVCAircraft,
                split,
                images,
                [f'data/images_variant_{split}.txt'],
            )
            for split, images in (('trainval', 6_667), ('test', 3_333))
        ),
    ),
    KnownDataset(
        'pets',
        'Oxford-IIIT Pets',
        'data/Oxford-IIIT_Pets',
        """\
annotations/trainval.txt
annotations/test.txt
images/Abyssinian_1.jpg""",
        tuple(
            _annotated(
                OxfordIIITPet, split, images, [f'annotations/{split}.txt']
            )
            for split, images in (('trainval', 3_680), ('test', 3_669))
        ),
    ),
)


def find_dataset(name: str) -> KnownDataset:
    """Return a data set by its name.

    Raises:
        ValueError: There is none of this name.
    """
    for dataset in KNOWN_DATASETS:
        if dataset.name == name:
            return dataset
    names = ', '.join(dataset.name for dataset in KNOWN_DATASETS)
    raise ValueError(f'no data set {name!r}: the known ones are {names}')


def check_split(
    split: Split, root: Path, track: Track = lambda items, text: items
) -> SplitReport:
    """Go through a split below ``root``.

    Args:
        split (Split): One of a :class:`KnownDataset`.
        root (Path): Where the data set is.
        track (Track): Shows the progress: returns what it gets, a sequence
            and a description of it. Defaults to nothing shown.
    """
    report = SplitReport(root)
    split.read(report, track)
    return report


def problems(split: Split, report: SplitReport) -> list[str]:
    """Say in words what is wrong with a split; an empty list: nothing."""
    found = []
    counts = (
        ('images', report.images, split.images),
        ('classes', len(report.classes), split.classes),
    )
    for what, count, known in counts:
        if known is not None and count != known:
            found.append(f'{count:,} {what} instead of {known:,}')
    for what, names in (
        ('missing', report.missing),
        ('empty or damaged', report.damaged),
        ('classes without images', report.missing_classes),
    ):
        if names:
            found.append(f'{what} ({len(names):,}): {first(names)}')
    return found + report.notes
