# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The table of settings, and what it makes of folders and machines."""

import csv
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmscfs.recipes import (
    GIB,
    Machine,
    choose,
    departures,
    look_at_images,
    look_at_machine,
    table,
)
from mmscfs.recipes.table import TABLE, Images, view_sizes

ROOT = Path(__file__).parents[2]
CPU = Machine(cores=2)
GPU = Machine(gpus=1, memory=80 * GIB, cores=16)
EIGHT = GPU._replace(gpus=8, cores=64)
DEMO = 'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
IMAGENET = 1_281_167


def images(count, side=500):
    return Images(Path('/images'), count, side)


def config(name, **options):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg.merge_from_dict(options)
    return cfg


def test_the_guide_shows_the_table():
    with open(ROOT / 'mmscfs/recipes/table.csv', encoding='utf-8') as file:
        rows = [*csv.reader(file)]
    page = (ROOT / 'docs/en/pretrain.md').read_text(encoding='utf-8')
    shown = [
        [cell.strip() for cell in line.strip('| ').split(' | ')]
        for line in page.splitlines()
        if line.startswith('| ')
    ]
    place = shown.index(rows[0])
    assert shown[place : place + len(rows)] == rows


@pytest.mark.parametrize(
    ('count', 'machine', 'batch', 'epochs', 'steps'),
    [
        # A step of 64 images: 404 // 64 = 6 an epoch; the length is that of
        # 2,000 steps: 2,000 * 64 / 404 = 316.8 epochs.
        (404, CPU, 64, 317, 6 * 317),
        (404, GPU, 64, 1584, 6 * 1584),  # 10,000 * 64 / 404 = 1584.2
        (5_000, GPU, 128, 512, 39 * 512),  # 20,000 * 128 / 5,000
        (30_000, GPU, 256, 341, 117 * 341),  # 40,000 * 256 / 30,000 = 341.3
        (IMAGENET, EIGHT, 32, 200, 5004 * 200),
        # Two batches an epoch, of a multiple of eight.
        (100, CPU, 48, 1280, 2 * 1280),  # 2,000 * 64 / 100
    ],
)
def test_batch_and_length(count, machine, batch, epochs, steps):
    found = choose(images(count), machine)
    assert (found.batch, found.processes) == (batch, max(machine.gpus, 1))
    assert (found.epochs, found.steps) == (epochs, steps)


@pytest.mark.parametrize(
    ('most', 'batch'), [(300, 256), (110, 104), (7, 6), (3, 2)]
)
def test_a_batch_that_fits(most, batch):
    found = choose(images(IMAGENET), GPU, most=most)
    assert found.batch == batch
    assert found.steps == 200 * (IMAGENET // batch)


def test_a_short_run_takes_no_settings_for_many_images():
    for count in (30_000, IMAGENET):
        assert choose(images(count), GPU, 9_000).column == TABLE[1]
        assert choose(images(count), CPU).column == TABLE[1]
    assert choose(images(404), GPU, 9_000).column == TABLE[0]
    found = choose(images(5_000), CPU, 700)
    assert (found.epochs, found.steps) == (9, 9 * 78)  # 700 / 78 = 8.97
    assert found.share(1 / 20) == 1
    with pytest.raises(ValueError, match='steps=0 must be'):
        choose(images(404), CPU, 0)


@pytest.mark.parametrize(
    ('side', 'sizes'),
    [
        # 96 / 224 of it, to the nearest multiple of 32.
        (20, (64, 32)),
        (160, (160, 64)),
        (4000, (224, 96)),
    ],
)
def test_views_are_not_larger_than_images(side, sizes):
    assert view_sizes(side, False) == (*sizes, 8)
    assert view_sizes(side, True) == (64, 32, 2)


@pytest.mark.parametrize(
    ('gpus', 'here', 'expected'),
    [
        (None, 2, (2, 30 * GIB)),
        (1, 2, (1, 30 * GIB)),
        (0, 2, (0, 4096 * 1000)),
        (None, 0, (0, 4096 * 1000)),
        (4, 0, (4, 0)),  # of another machine
    ],
)
def test_a_machine_is_looked_at(monkeypatch, gpus, here, expected):
    free = [40 * GIB, 30 * GIB]
    pages = {'SC_PAGE_SIZE': 4096, 'SC_PHYS_PAGES': 1000}
    monkeypatch.setattr('os.sysconf', pages.__getitem__)
    monkeypatch.setattr('torch.cuda.is_available', lambda: here > 0)
    monkeypatch.setattr('torch.cuda.device_count', lambda: here)
    monkeypatch.setattr('torch.cuda.mem_get_info', lambda i: (free[i], 0))
    assert look_at_machine(gpus)[:2] == expected


def write_images(folder, count):
    folder.mkdir()
    image = np.zeros((90, 70, 3), np.uint8)
    assert cv2.imwrite(str(folder / '0.jpg'), image)
    for i in range(1, count):
        (folder / f'{i}.jpg').symlink_to(folder / '0.jpg')


def test_a_folder_is_counted_and_measured(tmp_path):
    write_images(tmp_path / 'many', 400)
    (tmp_path / 'many/notes.txt').touch()
    for name, content in (
        ('broken.jpg', b'no image'),
        ('empty.png', b''),
        ('cut.tif', b'II*\0\x08\0\0\0'),
    ):
        (tmp_path / 'many' / name).write_bytes(content)
    image = cv2.imread(str(tmp_path / 'many/0.jpg'))
    assert cv2.imwrite(str(tmp_path / 'many/2000.jp2'), image)
    # What Pillow does not read, but the run does: 80 x 90 px of five channels
    # of 16 bits.
    tags = {256: 80, 257: 90, 258: 16, 277: 5}
    parts = [struct.pack('<HHII', tag, 3, 1, tags[tag]) for tag in tags]
    start = struct.pack('<2sHIH', b'II', 42, 8, len(tags))
    content = start + b''.join(parts) + bytes(4)
    (tmp_path / 'many/bands.tif').write_bytes(content)
    found = look_at_images(tmp_path / 'many')
    assert found == (tmp_path / 'many', 402, 70, 3)


def test_of_many_files_some_are_drawn(tmp_path, monkeypatch):
    """Every second one is damaged; even distances would meet all or none."""
    write_images(tmp_path / 'many', 252)
    for path in sorted((tmp_path / 'many').iterdir())[1::2]:
        path.unlink()
        path.touch()
    monkeypatch.setattr(table, 'LOOKED_AT', 126)
    found = look_at_images(tmp_path / 'many')
    assert 63 - 20 < found.damaged < 63 + 20  # five standard deviations
    assert found.total == 252 - found.damaged


@pytest.mark.parametrize(
    ('asked', 'steps', 'text'),
    [
        (None, 317 * 6, ''),
        (600, 600, ''),
        # 6 steps an epoch, and two epochs at least.
        (6, 12, '12 steps, not 6: a run has whole epochs, here of 6 steps'),
        (1_000, 1_002, '1,002 steps, not 1,000: a run has whole epochs'),
    ],
)
def test_a_length_that_was_rounded_says_so(asked, steps, text):
    settings = choose(images(404), CPU, asked)
    assert settings.steps == steps
    assert settings.other_length.startswith(text)
    assert bool(settings.other_length) == bool(text)


@pytest.mark.parametrize(
    ('count', 'error', 'message'),
    [
        (None, FileNotFoundError, 'no folder '),
        (0, FileNotFoundError, 'no image in '),
        (99, ValueError, 'has 99 images, and a pre-training needs 100'),
    ],
)
def test_too_few_images_are_refused(tmp_path, count, error, message):
    folder = tmp_path / 'images'
    if count:
        write_images(folder, count)
    elif count == 0:
        folder.mkdir()
    with pytest.raises(error, match=message):
        look_at_images(folder)


@pytest.mark.parametrize(
    ('name', 'count', 'options', 'remedies'),
    [
        # What learns, and what the paper trains.
        (DEMO, 3_000, {}, []),
        ('scfs_r50.py', IMAGENET, {}, []),
        # What failed: docs/en/learning.md.
        (
            'scfs_r50.py',
            404,
            {},
            ['num_prototypes=256', 'frozen_prototypes.epochs=200'],
        ),
        (
            DEMO,
            3_000,
            {'default_hooks.teacher_temp.end': 0.2},
            ['default_hooks.teacher_temp.end=0.05'],
        ),
        (
            DEMO,
            3_000,
            {'model.head.center_momentum': 1},
            ['model.head.center_momentum=0.9'],
        ),
        (
            DEMO,
            3_000,
            {
                'model.neck.norm_cfg': None,
                'default_hooks.frozen_prototypes.epochs': 1,
                'default_hooks.teacher.momentum': 0.996,
            },
            ['norm_cfg.type=BN1d', 'default_hooks.teacher.momentum=0.99'],
        ),
        # 6 steps an epoch: 50 epochs are 300 steps, 108 are 648.
        (DEMO, 404, {'train_cfg.max_epochs': 50}, ['_prototypes=256', '=108']),
    ],
)
def test_what_is_known_to_fail_is_named(name, count, options, remedies):
    if options.get('train_cfg.max_epochs'):
        options = options | {'default_hooks.teacher.momentum': 0.9}
    found = [
        remedy for _, remedy in departures(config(name, **options), count)
    ]
    assert len(found) == len(remedies), found
    for remedy, text in zip(remedies, found, strict=True):
        assert remedy in text
