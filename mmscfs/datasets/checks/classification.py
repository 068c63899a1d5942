# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check the data sets of a classifier, and those of k-NN."""

import os.path as osp
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmpretrain.datasets import (
    CIFAR10,
    CUB,
    VOC,
    CustomDataset,
    FGVCAircraft,
    OxfordIIITPet,
    StanfordCars,
)
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS

from ..image_names import check_inside
from ..wrappers import loader_datasets
from .common import (
    build,
    check_count,
    check_images,
    is_on_disk,
    reason,
    short,
    spread,
)

# With their subclasses: also CIFAR100 and ImageNet.
KINDS = (
    *(CIFAR10, CUB, VOC, CustomDataset),
    *(FGVCAircraft, OxfordIIITPet, StanfordCars),
)
REMEDY = (
    'a data set needs a folder for each class, or a list, ann_file; `python '
    'tools/dataset_converters/check_dataset.py --list` shows where the '
    'published ones belong, and make_digit_scenes.py makes the digits'
)


class Labels(NamedTuple):
    """What the labels of a data set are."""

    where: str  # the path of its config
    present: list[int]  # those of its images, sorted
    classes: list[str]  # all names; none if they are not known


def check_classification_data(
    cfg: Config, splits: Sequence[str] = ('train', 'val')
) -> None:
    """Check the data sets of a classification config against disk and model.

    Arguments and errors are those of :func:`check_data`. Looks at the data
    sets whose labels a run reads: that lists, images and labels fit each
    other and the model's head, and that no class of an evaluation lacks
    images in the training, or in the bank of a k-NN, linear sweep or SVMs
    (``val_cfg.bank_dataloader``).

    Class folders are only listed, each up to its first image: a second for
    ImageNet on a local disk. A list of files is read whole, as the run will
    do again: seven seconds for ImageNet's 1.28 million lines.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    head = (cfg.get('model') or {}).get('head')
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    taught = []
    # Without classes in the head it is a pre-training, without labels.
    if 'train' in splits and num_classes is not None:
        taught = check_loader(cfg, 'train_dataloader', num_classes)
    for split in splits:
        if split != 'train':
            bank = f'{split}_cfg.bank_dataloader'
            learned = check_loader(cfg, bank, num_classes) or taught
            asked = check_loader(cfg, f'{split}_dataloader', num_classes)
            for labels in asked:
                compare(learned, labels)


def check_loader(
    cfg: Config, path: str, num_classes: int | None
) -> list[Labels]:
    """Check the data sets of a loader, and return their labels."""
    found = []
    for where, settings in loader_datasets(cfg, path):
        kind = settings.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if kind is None or not issubclass(kind, KINDS):
            continue
        if is_on_disk(settings):
            found.append(read_labels(kind, settings, where, num_classes))
    return found


@contextmanager
def explained(where: str, settings: Mapping) -> Iterator[None]:
    """Turn what reading a data set raises into errors that name it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f'{where}.data_root={settings.get("data_root", "")!r}: '
            f'{reason(error)}; correct data_root, or put the data set there: '
            f'{REMEDY}'
        ) from error
    except Exception as error:  # whatever a damaged file leads its parser to
        raise ValueError(
            f'{where} cannot be read ({type(error).__name__}: '
            f'{reason(error)}): correct its settings, or its list or '
            f'annotations; {REMEDY}'
        ) from error


def read_labels(
    kind: type, settings: Mapping, where: str, num_classes: int | None
) -> Labels:
    """Read a data set's labels, and check some of its images."""
    if issubclass(kind, CIFAR10) and settings.get('download', True):
        raise ValueError(
            f'{where}.download must be False: runs download nothing; {REMEDY}'
        )
    with explained(where, settings):
        dataset = build(kind, settings, serialize_data=False)
    if not getattr(dataset, 'with_label', True):
        raise ValueError(
            f'{where} (type {kind.__name__}) has no labels, which are needed '
            "here: use type='ImageNet', or type='CustomDataset' with a folder "
            'for each class'
        )
    classes = dataset.metainfo.get('classes') or []
    with explained(where, settings):
        if reads_folders(dataset) and settings.get('indices') is None:
            folders, _ = find_folders(dataset.img_prefix)
            classes = classes or folders
            if len(classes) != len(folders):
                raise FileNotFoundError(
                    f'{len(folders)} class folders in {dataset.img_prefix!r} '
                    f'instead of {len(classes)}'
                )
            images = list(first_images(dataset, folders))
        else:
            dataset.full_init()
            images = dataset.data_list
        if not images:
            raise FileNotFoundError(f'no image in {dataset.img_prefix!r}')
    check_names(dataset, images, where)
    paths = [image.get('img_path') for image in spread(images)]
    steps = settings.get('pipeline') or ()
    check_images([path for path in paths if path], '', where, steps=steps)
    if num_classes is not None and classes:
        check_count('model.head.num_classes', num_classes, where, classes)
    # A list does not tell how many classes there are.
    limit = len(classes) or num_classes or sys.maxsize
    return Labels(where, labels_of(images, limit, where), list(classes))


def reads_folders(dataset: Any) -> bool:
    """Tell whether the classes are those of mmpretrain's class folders."""
    return (
        isinstance(dataset, CustomDataset)
        and not dataset.ann_file
        and type(dataset).load_data_list is CustomDataset.load_data_list
        and type(dataset)._find_samples is CustomDataset._find_samples
    )


def first_images(dataset: Any, folders: Sequence[str]) -> Iterator[dict]:
    """Yield an image of each class folder that has one."""
    root = dataset.img_prefix
    backend = get_file_backend(root, enable_singleton=True)
    for label, folder in enumerate(folders):
        files = backend.list_dir_or_file(
            osp.join(root, folder), list_dir=False, recursive=True
        )
        file = next(filter(dataset.is_valid_file, files), None)
        if file is not None:
            path = osp.join(root, folder, file)
            yield dict(img_path=path, gt_label=label)


def check_names(dataset: Any, images: Sequence[dict], where: str) -> None:
    """Check that the names of a list do not leave the folder of images.

    An absolute name takes the place of the folder. Without a folder, a list
    has whole paths, but no addresses.
    """
    folder = dataset.data_prefix.get('img_path') or ''
    start = osp.join(folder, '')
    for image in images:
        path = image.get('img_path')
        if path and (folder or '://' in path):
            inside = path.startswith(start)
            name = path[len(start) :].lstrip('/') if inside else path
            check_inside(name, f'{where}: the list of images', folder)


def labels_of(images: Sequence[Mapping], limit: int, where: str) -> list[int]:
    """Return the labels of images, of which each has one or a list."""
    labels: set[Any] = set()
    for image in images:
        label = image.get('gt_label')
        labels |= {*label} if isinstance(label, list) else {label}
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < limit:
            raise ValueError(
                f'{where} has an image with the label {label!r}, which must '
                f'be a whole number from 0 to {limit - 1}, by the classes of '
                'the data set or model.head.num_classes: correct its list, '
                'ann_file, or num_classes'
            )
    return sorted(labels)


def compare(taught: Sequence[Labels], asked: Labels) -> None:
    """Check that what is taught has the classes asked for, by same labels."""
    for part in taught:
        moved = [
            asked.classes[i]
            for i in asked.present
            if part.classes and asked.classes
            if part.classes[i : i + 1] != [asked.classes[i]]
        ]
        if moved:
            raise ValueError(
                f'{asked.where} and {part.where} have other classes, or '
                f'number them differently, e.g. {moved[0]!r}: labels are the '
                'places of the class folders in alphabetical order, so both '
                'need the same folders'
            )
    known = {label for part in taught for label in part.present}
    lacking = [label for label in asked.present if label not in known]
    if taught and lacking:
        names = [asked.classes[i] if asked.classes else i for i in lacking]
        raise ValueError(
            f'{asked.where} has classes without an image in '
            f'{" and ".join(part.where for part in taught)}: '
            f'{short(names)}; use the same data set for both splits, and add '
            'the missing classes'
        )
