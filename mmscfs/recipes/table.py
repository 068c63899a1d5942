# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Settings of a pre-training for a folder of images, from one table.

``table.csv`` beside this file is the table, which docs/en/pretrain.md shows.
"""

import csv
import os
import warnings
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from mmengine.config import Config

from mmscfs.datasets.image_files import find_images
from mmscfs.datasets.subsets import draw
from mmscfs.datasets.transforms.headers import read_header, tiff_layout

GIB = 2**30
LOOKED_AT = 20_000  # files whose headers are read, drawn from more
SHORTEST = 20  # epochs: the shares of a run are whole epochs
SHORT = 10_000  # steps: with fewer, no settings for many images
BRIEF = 5_000  # steps: teacher and centers follow sooner in such a run
FEWEST_STEPS = 644  # with which view recall of digit scenes rose


def read_table() -> list[dict[str, str]]:
    """Return the columns of the table: values by setting."""
    with open(Path(__file__).with_name('table.csv'), encoding='utf-8') as file:
        names, *columns, _ = zip(*csv.reader(file), strict=True)
    return [
        {name: v.replace(',', '') for name, v in zip(names, c, strict=True)}
        for c in columns
    ]


TABLE = read_table()
FROM = [int(column['images from']) for column in TABLE]


class Images(NamedTuple):
    """What a folder holds."""

    folder: Path  #: The folder, absolute.
    total: int  #: Its images that can be opened, at any depth.
    side: int  #: Their median shorter side, in px.
    damaged: int = 0  #: The others, which a run skips.


class Machine(NamedTuple):
    """What a run has."""

    gpus: int = 0  #: 0 for a run on the CPU.
    memory: float = 0  #: Bytes of a GPU, or of the machine.
    cores: int = 1  #: Of the CPU.


def look_at_images(folder: str | Path) -> Images:
    """Count a folder's images by their headers.

    Of more than 20,000 files it opens so many, drawn with one seed, and
    counts the others as images.

    Raises:
        FileNotFoundError: The folder does not exist, or has no image.
        ValueError: There are too few.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise FileNotFoundError(
            f'no folder {str(path)!r}: name the folder of your images'
        )
    names, ignored = find_images(str(path))
    if not names:
        raise FileNotFoundError(
            f'no image in {str(path)!r}{ignored}: name the folder of your '
            'images'
        )
    paths = [path / name for name in draw(names, LOOKED_AT, seed=0)]
    # Eight, which wait for the disk; Pillow warns of damaged files.
    with ThreadPool(8) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = pool.map(read_side, paths, chunksize=64)
    sides = [side for side in found if side is not None]
    damaged = len(found) - len(sides)
    total = len(names) - damaged
    if total < FROM[0] or not sides:
        raise ValueError(
            f'{str(path)!r} has {total} images'
            + f' and {damaged} files that cannot be opened' * (damaged > 0)
            + f', and a pre-training needs {FROM[0]} or more: add images, or '
            'start your detector from an existing network (--pretrained of '
            'tools/train.py)'
        )
    return Images(path, total, int(median(sides)), damaged)


def read_side(path: Path) -> int | None:
    """Return an image's shorter side by its header, px; None of no image."""
    try:
        with open(path, 'rb') as file:
            header = read_header(file) or tiff_layout(file)
            return min(header.size) if header else None
    except OSError:
        return None


def look_at_machine(gpus: int | None = None) -> Machine:
    """Return what a run has here, with all GPUs or with some.

    Args:
        gpus (int, optional): How many it will have, 0 for the CPU. Defaults
            to None: all that torch sees.

    Returns:
        Machine: Its memory is what is free on the fullest GPU, or all of the
        machine's; 0 for GPUs that are not here, which have cores enough.
    """
    found = range(torch.cuda.device_count() * torch.cuda.is_available())
    gpus = len(found) if gpus is None else gpus
    cores = len(os.sched_getaffinity(0))
    if not gpus:
        pages = os.sysconf('SC_PHYS_PAGES')
        return Machine(0, os.sysconf('SC_PAGE_SIZE') * pages, cores)
    if not found:
        return Machine(gpus, 0, 16 * gpus)
    free = min(torch.cuda.mem_get_info(i)[0] for i in found)
    return Machine(gpus, free, cores)


def column_of(images: int, is_short: bool) -> dict[str, str]:
    """Return the table's column for a number of images."""
    place = sum(images >= first for first in FROM) - 1
    return TABLE[min(max(place, 0), 1 if is_short else len(TABLE))]


def view_sizes(side: int, is_cpu: bool) -> tuple[int, int, int]:
    """Return the px of a global and a local view, and the local ones.

    A view is not larger than the images, and no ResNet divides by less than
    32. The sizes have the paper's ratio, 96 to 224.
    """
    largest = 64 if is_cpu else 224
    size = min(max(side // 32 * 32, 64), largest)
    return size, round(size * 96 / 224 / 32) * 32, 2 if is_cpu else 8


class Settings(NamedTuple):
    """What the table and the machine make of a folder."""

    batch: int  #: Images a step of each process.
    processes: int  #: GPUs, or 1.
    epochs: int  #: The run's one length; the shares below follow it.
    steps: int  #: The same length in steps.
    depth: int  #: Of the ResNet.
    width: int  #: Its channels.
    #: Px of a global and a local view, and how many local ones.
    views: tuple[int, int, int]
    column: dict[str, str]  #: The table's.
    #: The steps that were asked for; None: none were.
    asked: int | None = None
    memory: float = 0  #: What a step takes, in bytes; 0: not counted.

    @property
    def other_length(self) -> str:
        """Why the length is not the one that was asked for, '' if it is."""
        if self.asked in (None, self.steps):
            return ''
        return (
            f'{self.steps:,} steps, not {self.asked:,}: a run has whole '
            f'epochs, here of {self.steps // self.epochs:,} steps, and two '
            'or more of them, since the first warms up'
        )

    @property
    def is_brief(self) -> bool:
        """Whether teacher and centers must follow sooner."""
        return self.steps < BRIEF

    def share(self, part: float) -> int:
        """Return a part of the run in whole epochs."""
        return max(round(part * self.epochs), 1)


def choose(
    images: Images,
    machine: Machine,
    steps: int | None = None,
    most: int | None = None,
) -> Settings:
    """Choose the settings of a pre-training.

    Args:
        images (Images): From :func:`look_at_images`.
        machine (Machine): From :func:`look_at_machine`.
        steps (int, optional): The run's length, rounded to whole epochs, of
            which it has two at least. Defaults to None, the table's.
        most (int, optional): The largest batch that the memory of a GPU
            holds. Defaults to None: any.

    Raises:
        ValueError: steps is too low.
    """
    if steps is not None and steps < 1:
        raise ValueError(f'steps={steps} must be at least 1')
    is_cpu = not machine.gpus
    is_short = is_cpu or (steps is not None and steps < SHORT)
    column = column_of(images.total, is_short)
    views = view_sizes(images.side, is_cpu)
    depth = 18 if is_cpu else int(column['ResNet on GPUs'])
    width = 16 if is_cpu else 64
    wanted = 64 if is_cpu else int(column['images a step'])
    # Two steps an epoch at least, and two images for batch norm.
    total = min(wanted, images.total // 2)
    processes = max(min(machine.gpus, total // 2), 1)
    batch = total // processes
    if most is not None:
        batch = min(batch, most)
    # A multiple of eight suits GPUs.
    batch = batch // 8 * 8 or batch // 2 * 2
    # The run draws the damaged files, too, and takes others for them.
    files = images.total + images.damaged
    per_epoch = files // (batch * processes)
    length = column_of(images.total, False)[
        'steps on a CPU' if is_cpu else 'steps on GPUs'
    ]
    if steps is not None:
        epochs = max(round(steps / per_epoch), 2)  # the warm-up has one
    elif length.endswith(' epochs'):
        epochs = int(length.split()[0])
    else:  # as many images as with the table's batch
        epochs = max(round(int(length) * wanted / images.total), SHORTEST)
    return Settings(
        batch,
        processes,
        epochs,
        epochs * per_epoch,
        depth,
        width,
        views,
        column,
        steps,
    )


def departures(cfg: Config, images: int) -> Iterator[tuple[str, str]]:
    """Yield where a pre-training departs from the table in ways known to fail.

    What is wrong with so many images, and the settings that change it;
    docs/en/learning.md has the measurements. Configs of other algorithms than
    SCFS and DINO have none.
    """
    if cfg.model.get('type') not in ('SCFS', 'DINO'):
        return
    hooks = {name: hook or {} for name, hook in cfg.default_hooks.items()}
    neck = cfg.model.get('neck') or {}
    per_epoch = max(images // cfg.train_dataloader.batch_size, 1)
    epochs = cfg.train_cfg.get('max_epochs', 0)
    steps = epochs * per_epoch
    table = column_of(images, steps < SHORT)
    prototypes = neck.get('num_prototypes', 65536)
    if prototypes > images:
        yield (
            f'{prototypes} prototypes for {images} images: most are never '
            'chosen',
            'model.neck.num_prototypes='
            f'{min(int(table["prototypes"]), images)}',
        )
    frozen = hooks.get('frozen_prototypes', {}).get('epochs', 1)
    wanted = round(float(table['prototypes frozen']) * epochs)
    norm = table["projector's norm"]
    if norm != 'none' and not neck.get('norm_cfg') and frozen < wanted:
        yield (
            f'the prototypes move after {frozen * per_epoch} steps, and '
            "DINO's projector has no norm: made for a million images, this "
            'found 3,000 all alike',
            f'model.neck.norm_cfg.type={norm} '
            f'default_hooks.frozen_prototypes.epochs={wanted}',
        )
    momentum = hooks.get('teacher', {}).get('momentum', 0.996)
    if (1 - momentum) * steps < 4:
        yield (
            f'a teacher of momentum {momentum} is a mean of more than a '
            f'quarter of the {steps} steps',
            'default_hooks.teacher.momentum=0.99',
        )
    if 0 < steps < FEWEST_STEPS:
        yield (
            f'{steps} steps: the shortest run known to learn has '
            f'{FEWEST_STEPS}, and 300 were too few',
            f'train_cfg.max_epochs={-(-FEWEST_STEPS // per_epoch)} or more',
        )
    temperature = hooks.get('teacher_temp', {}).get('end', 0.07)
    if temperature > 0.1:
        yield (
            f'a teacher of temperature {temperature}: at 0.2 it '
            'finds all prototypes equally likely',
            f'default_hooks.teacher_temp.end={table["its end"]}',
        )
    if cfg.model.head.get('center_momentum', 0.9) >= 1:
        yield (
            'model.head.center_momentum=1: with centers that stand still all '
            'images get one prototype',
            'model.head.center_momentum=0.9',
        )
