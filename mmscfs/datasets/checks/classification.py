# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check the data sets of a classifier, and those of k-NN."""

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmpretrain.datasets import (
    CIFAR10,
    CIFAR100,
    CUB,
    VOC,
    CustomDataset,
    FGVCAircraft,
    ImageNet,
    OxfordIIITPet,
    StanfordCars,
)
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS

from ..image_files import ImageFiles, check_inside
from .common import (
    build,
    check_images,
    is_on_disk,
    loader_datasets,
    short,
    spread,
)

# With their names in tools/dataset_converters/check_dataset.py.
CHECKED = (
    (CIFAR100, 'cifar100'),
    (CIFAR10, 'cifar10'),
    (CUB, 'cub200'),
    (StanfordCars, 'cars'),
    (FGVCAircraft, 'aircraft'),
    (OxfordIIITPet, 'pets'),
    (VOC, 'voc07'),
    (ImageNet, 'in1k'),
    (CustomDataset, None),
)
KINDS = tuple(kind for kind, _ in CHECKED)
PREFIXES = ('img_path', 'ann_path')
TOOLS = 'tools/dataset_converters'


class Labels(NamedTuple):
    """What the labels of a data set are."""

    where: str  # the path of its config
    present: list[int]  # those of its images, sorted
    classes: list[str]  # all names; none if they are not known


def check_classification_data(
    cfg: Config, splits: Sequence[str] = ('train', 'val')
) -> None:
    """Check the data sets of a classification config against disk and model.

    Looks at mmpretrain's ImageNet, CustomDataset, CIFAR10, CIFAR100, CUB,
    StanfordCars, FGVCAircraft, OxfordIIITPet and VOC, and their subclasses,
    inside any wrapper; other data sets, and files that are not on a disk, are
    left to themselves. Checks that lists, images and labels are there and
    fit each other, that the model's head has as many classes, and that no
    class is met in an evaluation that the training, or the bank of a k-NN,
    linear sweep or SVMs (``val_cfg.bank_dataloader``), lacks.

    Of a data set in class folders, only the folders are listed, and each up
    to its first image: a second for ImageNet on a local disk. A list of files
    is read whole, as the run will do again: seven seconds for ImageNet's 1.28
    million lines. Of each data set 20 images are opened.

    Args:
        cfg (Config): Any config; nothing is changed.
        splits (Sequence[str]): The data loaders that the run will use, of
            "train", "val" and "test". Defaults to ("train", "val").

    Raises:
        FileNotFoundError: Lists or images are missing.
        ValueError: They are damaged, have no labels, or do not fit each other
            or the model. Both name the setting, its value and the remedy.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    head = (cfg.get('model') or {}).get('head')
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    # Without classes in the head it is a pre-training, without labels.
    is_labeled = num_classes is not None
    taught = (
        check_loader(cfg, 'train_dataloader', num_classes, is_labeled)
        if 'train' in splits
        else []
    )
    for split in splits:
        if split != 'train':
            bank = check_loader(
                cfg, f'{split}_cfg.bank_dataloader', num_classes
            )
            for labels in check_loader(
                cfg, f'{split}_dataloader', num_classes
            ):
                compare(bank or taught, labels)


def check_loader(
    cfg: Config, path: str, num_classes: int | None, is_labeled: bool = True
) -> list[Labels]:
    """Check the data sets of a loader, and return their labels.

    Args:
        cfg (Config): The whole config.
        path (str): The loader's setting, e.g. "val_dataloader".
        num_classes (int, optional): That of the model's head.
        is_labeled (bool): Whether the images need labels. Defaults to True.
    """
    found = []
    for where, settings in loader_datasets(cfg, path):
        kind = settings.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if kind is None or not issubclass(kind, KINDS):
            continue
        if issubclass(kind, ImageFiles) and not is_labeled:
            continue  # it names its errors itself
        if not is_on_disk(settings):
            continue
        labels = check_dataset(kind, settings, where, is_labeled)
        if labels is not None:
            found.append(labels)
            if num_classes is not None:
                check_num_classes(labels, num_classes)
    return found


def check_dataset(
    kind: type, settings: Mapping, where: str, is_labeled: bool
) -> Labels | None:
    """Check one data set; return its labels if it has to have them."""
    lost = partial(missing, kind, settings, where)
    if issubclass(kind, CIFAR10) and settings.get('download', True):
        raise ValueError(
            f'{where}.download must be False: runs download nothing; '
            f'{remedy(kind, settings)}'
        )
    try:
        dataset = build(kind, settings, serialize_data=False)
    except AssertionError as error:
        raise ValueError(f'{where}: {error}') from error
    except (OSError, RuntimeError) as error:
        raise lost(error) from error
    if is_labeled and not getattr(dataset, 'with_label', True):
        raise ValueError(
            f'{where} (type {kind.__name__}) has no labels, which are needed '
            "here: use type='ImageNet', or type='CustomDataset' with a folder "
            'for each class'
        )
    name = 'image_set_path' if isinstance(dataset, VOC) else 'ann_file'
    ann_file = getattr(dataset, name)
    folder, annotations = map(dataset.data_prefix.get, PREFIXES)
    if ann_file and not osp.isfile(ann_file):
        raise lost(f'no list, {name}={ann_file!r}')
    for path in (folder, annotations):
        if path and not osp.isdir(path):
            raise lost(f'no folder {path!r}')
    if not is_labeled:
        return None
    if reads_folders(dataset) and settings.get('indices') is None:
        folders, _ = find_folders(folder)
        classes = dataset.metainfo.get('classes') or folders
        if len(classes) != len(folders):
            raise lost(
                f'{len(folders)} class folders in {folder!r} instead of '
                f'{len(classes)} (without class folders it needs a list of '
                f'"FILE LABEL" lines, {where}.ann_file)'
            )
        images = list(first_images(dataset, folders))
    else:
        images = read_images(dataset, settings, where)
        classes = dataset.metainfo.get('classes') or []
    if not images:
        raise lost(f'no image in {folder!r}')
    paths = [image.get('img_path') for image in spread(images)]
    check_images([path for path in paths if path], where)
    return labels_of(images, list(classes), where)


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


def read_images(dataset: Any, settings: Mapping, where: str) -> list[dict]:
    """Read the whole list of images."""
    kind = type(dataset)
    try:
        dataset.full_init()
    except (OSError, RuntimeError) as error:
        problem: Any = error
        if isinstance(dataset, CIFAR10):  # whose own remedy is a download
            problem = 'the files are missing or damaged'
        raise missing(kind, settings, where, problem) from error
    except Exception as error:  # whatever a damaged file leads its parser to
        files = f'its list {dataset.ann_file!r} is damaged, or a line'
        if isinstance(dataset, VOC):
            files = f'a file in {dataset.ann_prefix!r} is damaged, or'
        raise ValueError(
            f'{where}: {files} has no label ({type(error).__name__}: '
            f'{error}); {remedy(kind, settings)}'
        ) from error
    folder = dataset.data_prefix.get('img_path') or ''
    start = osp.join(folder, '')
    for image in dataset.data_list:
        path = image.get('img_path')
        # Without a folder a list has whole paths, but no addresses.
        if path and (folder or '://' in path):
            # An absolute name took the place of the folder.
            inside = path.startswith(start)
            name = path[len(start) :].lstrip('/') if inside else path
            check_inside(name, f'{where}: the list of images', folder)
    return dataset.data_list


def missing(
    kind: type, settings: Mapping, where: str, problem: Any
) -> FileNotFoundError:
    """Return the error of a data set that is not there, or not complete."""
    problem = ' '.join(str(problem).split()).rstrip('.')
    root = settings.get('data_root', '')
    return FileNotFoundError(
        f'{where}.data_root={root!r}: {problem}; correct data_root, or put '
        f'the data set there: {remedy(kind, settings)}'
    )


def remedy(kind: type, settings: Mapping) -> str:
    """Say which command helps with a data set."""
    root = str(settings.get('data_root', ''))
    folder = Path(root).name
    if folder == 'digit-scenes':
        return f'`python {TOOLS}/make_digit_scenes.py --out {root}` makes it'
    name = next(name for base, name in CHECKED if issubclass(kind, base))
    ann_file = Path(str(settings.get('ann_file', ''))).stem
    if name == 'in1k' and ann_file in ('train_1percent', 'train_10percent'):
        name = ann_file.replace('train_', 'in1k-')
    elif name is None and folder == 'imagenet100':
        name = 'in100'
    if name is None or not root:
        return 'it needs a folder for each class, or a list, ann_file'
    return (
        f'`python {TOOLS}/check_dataset.py {name} --root {root}` says what is '
        'missing'
    )


def labels_of(
    images: Sequence[Mapping], classes: list[str], where: str
) -> Labels:
    """Collect the labels of images, of which each has one or a list.

    Raises:
        ValueError: One is missing, negative, or beyond the classes.
    """
    labels: set[Any] = set()
    for image in images:
        label = image.get('gt_label')
        labels |= {*label} if isinstance(label, list) else {label}
    for label in labels:
        if not isinstance(label, int) or not (
            0 <= label < (len(classes) or float('inf'))
        ):
            limits = f'from 0 to {len(classes) - 1}' if classes else '>= 0'
            raise ValueError(
                f'{where} has an image with the label {label!r}, which must '
                f'be a whole number {limits}: correct its list, ann_file'
            )
    return Labels(where, sorted(labels), classes)


def check_num_classes(labels: Labels, num_classes: int) -> None:
    """Check the number of classes of the model's head.

    Raises:
        ValueError: It is not that of the data set.
    """
    where, count = labels.where, len(labels.classes)
    largest = max(labels.present, default=0)
    if count and count != num_classes:
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
    has_names = all(part.classes for part in (*taught, asked))

    def named(part: Labels) -> list[Any]:
        return [part.classes[i] if has_names else i for i in part.present]

    known = {name for part in taught for name in named(part)}
    lacking = [name for name in named(asked) if name not in known]
    if taught and lacking:
        raise ValueError(
            f'{asked.where} has classes without an image in '
            f'{" and ".join(part.where for part in taught)}: '
            f'{short(lacking)}; use the same data set for both splits, and '
            'add the missing classes'
        )
    for part in taught if has_names else ():
        moved = [
            name
            for i, name in zip(asked.present, named(asked), strict=True)
            if part.classes[i : i + 1] != [name]
        ]
        if moved:
            raise ValueError(
                f'{asked.where} and {part.where} number their classes '
                f'differently, e.g. {moved[0]!r}: labels are the places of '
                'the class folders in alphabetical order, so both need the '
                'same folders'
            )
