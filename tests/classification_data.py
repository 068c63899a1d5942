# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tiny data sets in the layouts of the real ones, and configs cut to them.

Each has NUM images in a split, of the first classes, four each.
"""

import hashlib
import pickle
from pathlib import Path

import cv2
import mat4py
import numpy as np
from mmengine.config import Config, ConfigDict
from mmpretrain.datasets import CIFAR10, VOC, FGVCAircraft
from mmpretrain.registry import DATASETS

NUM = 8
LABELS = [i // 4 for i in range(NUM)]
SIZE = 32  # of a crop


def draw(path: Path, label: int, index: int) -> None:
    """Write an image that shows its class by its brightness."""
    rng = np.random.default_rng(index)
    low = 40 + 150 * label
    image = rng.integers(low, low + 60, (48, 40, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def make_folders(root: Path, dataset: ConfigDict) -> None:
    for i, label in enumerate(LABELS):
        folder = root / dataset.data_prefix / str(label)
        draw(folder / f'{i}.jpg', label, i)


def make_imagenet(root: Path, dataset: ConfigDict) -> None:
    names = [f'n0{label}/n0{label}_{i}.JPEG' for i, label in enumerate(LABELS)]
    for i, label in enumerate(LABELS):
        draw(root / dataset.split / names[i], label, i)
    listing = dataset.get('ann_file') or f'meta/{dataset.split}.txt'
    lines = [f'{n} {y}' for n, y in zip(names, LABELS, strict=True)]
    write_lines(root / listing, lines)


def make_cub(root: Path, dataset: ConfigDict) -> None:
    """Both splits at once: odd images are for training."""
    labels = [label for label in LABELS for _ in range(2)]
    names = [f'{y + 1:03d}.bird/{i}.jpg' for i, y in enumerate(labels, 1)]
    for i, label in enumerate(labels, 1):
        draw(root / 'images' / names[i - 1], label, i)
    for file, values in (
        ('images.txt', names),
        ('image_class_labels.txt', [label + 1 for label in labels]),
        ('train_test_split.txt', [i % 2 for i in range(1, 2 * NUM + 1)]),
    ):
        lines = [f'{i} {value}' for i, value in enumerate(values, 1)]
        write_lines(root / file, lines)


def make_cars(root: Path, dataset: ConfigDict) -> None:
    names, labels, tests = [], [], []
    for is_test in (0, 1):
        for i, label in enumerate(LABELS):
            names.append(f'car_ims/{is_test}{i:05d}.jpg')
            draw(root / names[-1], label, i)
            labels.append(label + 1)
            tests.append(is_test)
    content = {'relative_im_path': names, 'class': labels, 'test': tests}
    mat4py.savemat(str(root / 'cars_annos.mat'), {'annotations': content})


def make_aircraft(root: Path, dataset: ConfigDict) -> None:
    classes = FGVCAircraft.METAINFO['classes']
    lines = []
    for i, label in enumerate(LABELS):
        name = f'{dataset.split}{i}'
        draw(root / f'data/images/{name}.jpg', label, i)
        lines.append(f'{name} {classes[label]}')
    write_lines(root / f'data/images_variant_{dataset.split}.txt', lines)


def make_pets(root: Path, dataset: ConfigDict) -> None:
    lines = []
    for i, label in enumerate(LABELS):
        name = f'cat_{dataset.split}_{i}'
        draw(root / f'images/{name}.jpg', label, i)
        lines.append(f'{name} {label + 1} 1 1')
    write_lines(root / f'annotations/{dataset.split}.txt', lines)


def make_cifar(root: Path, dataset: ConfigDict) -> None:
    """CIFAR's python version, all of a split in one file."""
    is_ten = dataset.type == 'CIFAR10'
    folder = root / ('cifar-10-batches-py' if is_ten else 'cifar-100-python')
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    for name in names if is_ten else ['train', 'test']:
        data = rng.integers(0, 256, (NUM, 3072), dtype=np.uint8)
        labels = {'labels' if is_ten else 'fine_labels': LABELS}
        (folder / name).write_bytes(pickle.dumps({'data': data, **labels}))


def register_cifar(patch, root: Path, labels: list[int]) -> Path:
    """Register a CIFAR-10 of one file as "Cifar"; return the file."""
    data = np.zeros((len(labels), 3072), np.uint8)
    file = root / 'cifar-10-batches-py/batch'
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(dict(data=data, labels=labels)))
    files = [['batch', hashlib.md5(file.read_bytes()).hexdigest()]]
    kind = type('Cifar', (CIFAR10,), dict(train_list=files, test_list=files))
    patch.setitem(DATASETS.module_dict, 'Cifar', kind)
    return file


def write_voc(
    root: Path, split: str, images: dict[str, tuple[list[str], list[str]]]
) -> None:
    """Write a split of VOC.

    Args:
        root (Path): Folder of the year.
        split (str): E.g. "trainval".
        images (dict): By name, the classes that an image shows, and those
            of its "difficult" objects.
    """
    classes = VOC.METAINFO['classes']
    for index, (name, parts) in enumerate(images.items()):
        objects = ''
        rng = np.random.default_rng(index)
        image = rng.integers(0, 60, (48, 40, 3), dtype=np.uint8)
        for difficult, shown in enumerate(parts):
            for other in shown:
                objects += (
                    f'<object><name>{other}</name><difficult>{difficult}'
                    '</difficult></object>'
                )
                # The color is that of the class.
                image[:, :, classes.index(other) % 3] += 150
        path = root / 'JPEGImages' / f'{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        xml = f'<annotation>{objects}</annotation>'
        write_lines(root / 'Annotations' / f'{name}.xml', [xml])
    write_lines(root / 'ImageSets/Main' / f'{split}.txt', list(images))


def make_colors(root: Path) -> None:
    """Six folders of classes, each a color: 8 images to learn, 3 to test."""
    generator = np.random.default_rng(0)
    for label in range(6):
        color = generator.integers(0, 256, 3)
        for split, count in (('train', 8), ('val', 3)):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                noise = generator.normal(0, 60, (SIZE, SIZE, 3))
                image = (color + noise).clip(0, 255).astype(np.uint8)
                assert cv2.imwrite(str(folder / f'{i}.png'), image)


def ordered_loader(root: Path, split: str) -> dict:
    """Return the config of a loader that keeps the images' order."""
    return dict(
        batch_size=5,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CustomDataset',
            data_root=str(root),
            data_prefix=split,
            pipeline=[dict(type='LoadImage'), dict(type='PackInputs')],
        ),
    )


MAKERS = dict(
    CIFAR10=make_cifar,
    CIFAR100=make_cifar,
    CUB=make_cub,
    CustomDataset=make_folders,
    FGVCAircraft=make_aircraft,
    ImageNet=make_imagenet,
    OxfordIIITPet=make_pets,
    StanfordCars=make_cars,
)


def make_data(cfg: Config, root: Path) -> None:
    """Make the files that a config reads, below ``root``; point it there."""
    root.mkdir(parents=True, exist_ok=True)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        MAKERS[dataset.type](root, dataset)
        dataset.data_root = str(root)


def shrink_loader(loader: ConfigDict, batch: int) -> None:
    """Cut a data loader to one process and small images or views."""
    loader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    loader.dataset.pop('indices', None)
    loader.dataset.serialize_data = False  # it collects garbage
    for transform in loader.dataset.get('pipeline', []):
        if transform.type == 'MultiCrop':
            num_local = min(transform.get('num_local', 2), 2)
            transform.update(
                global_size=SIZE, local_size=SIZE, num_local=num_local
            )
        elif transform.type == 'ResizeEdge':
            transform.scale = SIZE + 4
        elif transform.type == 'CenterCrop':
            transform.crop_size = SIZE
        elif transform.type in ('RandomResizedCrop', 'Resize'):
            transform.scale = (SIZE, SIZE)


def shrink(cfg: Config) -> None:
    """Cut a run to an iteration of all images, and its network's width."""
    for split in ('train', 'val', 'test'):
        shrink_loader(cfg[f'{split}_dataloader'], NUM)
    if cfg.model.backbone.type == 'ResNet':
        cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
        cfg.model.head.in_channels = 64
    else:
        # The small one's width, and as many of them as there were.
        width = {'deit-small': 384, 'deit-base': 768}[cfg.model.backbone.arch]
        cfg.model.head.in_channels = cfg.model.head.in_channels // width * 16
        cfg.model.backbone.update(
            img_size=SIZE,
            arch=dict(
                embed_dims=16,
                num_layers=12,
                num_heads=2,
                feedforward_channels=16,
            ),
        )
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
