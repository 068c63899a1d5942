# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every kind of file that a command writes, on a disk that is full."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from chaos import SHRINK, make_images
from classification_data import make_colors
from commands import call, load_tool
from digit_runs import KNN

from mmscfs.visualization import draw_label_curves

EXPORT = 'tools/model_converters/export_backbone.py'
SWEEP = 'configs/sweeps/contrast-modes_digits.py'
MAKE = 'tools/dataset_converters/make_digit_scenes.py'
DIGIT_CARDS = 'mmscfs::scfs_resnet18-w16_digit-cards'


@pytest.fixture
def full(small_disk):
    """A disk without room, and a file on it."""
    (small_disk / 'old').write_bytes(b'old')
    with open(small_disk / 'ballast', 'wb', buffering=0) as file:
        for size in (2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return small_disk


def refuses(full, script, *words, name):
    """Call a command that must say that the disk is full, and leave it."""
    if name:
        (full / 'old').rename(full / name)
    before = {path: path.lstat().st_ino for path in full.rglob('*')}
    done = call(script, *words)
    assert done.returncode == 1, done.output
    assert done.stderr.count('error: ') == 1, done.stderr
    assert 'No space left on device' in done.stderr
    assert re.search('ree space there|name another folder', done.stderr)
    assert str(full) in done.stderr
    assert {path: path.lstat().st_ino for path in full.rglob('*')} == before
    if name:
        assert (full / name).read_bytes() == b'old'
    return done


def test_exports(full):
    words = DIGIT_CARDS, full / 'out.pth', '--overwrite'
    refuses(full, EXPORT, *words, name='out.pth')


def test_data_sets(full):
    words = '--out', full / 'scenes', '--train', 2, '--val', 1, '--workers', 0
    refuses(full, MAKE, *words, name='')


def test_results(full, pretrained, tmp_path):
    make_colors(tmp_path / 'data')
    link = full / 'epoch_14.pth'
    link.symlink_to(pretrained)
    words = [
        *(KNN, link, '--work-dir', tmp_path / 'work', '--cfg-options'),
        f'test_dataloader.dataset.data_root={tmp_path}/data',
        f'test_cfg.bank_dataloader.dataset.data_root={tmp_path}/data',
        'test_cfg.ks=[1]',
    ]
    name = 'epoch_14.knn_resnet18-w16_digits.json'
    refuses(full, 'tools/test.py', *words, name=name)
    link.unlink()
    words[1] = pretrained
    words.append(f'test_cfg.features={full}/features')
    shutil.rmtree(tmp_path / 'work')
    (full / name).rename(full / 'old')
    (full / 'features').mkdir()
    refuses(full, 'tools/test.py', *words, name='')


def test_plans_and_recipes(full, tmp_path):
    refuses(full, 'tools/sweep.py', SWEEP, '--work-dir', full, name='sweep.md')
    make_images(tmp_path / 'images', 100)
    words = tmp_path / 'images', '--out', full / 'my.py', '--gpus', 0
    refuses(full, 'tools/recipe.py', *words, name='')


def test_what_the_machine_has(full):
    done = call('tools/doctor.py', '--json', (full / 'old'))
    assert done.returncode == 2
    assert f'error: --json {full}/old: [Errno 28] No space' in done.stderr
    assert (full / 'old').read_bytes() == b'old'
    assert len([*full.iterdir()]) == 2


def test_curves(full):
    (full / 'old').rename(full / 'old.png')
    with pytest.raises(OSError, match='No space left'):
        draw_label_curves({'a': {4: (1.0, 0.5)}}, 'AP', full / 'old.png')
    assert (full / 'old.png').read_bytes() == b'old'


def test_the_result_of_the_best_of_a_grid(full, tmp_path):
    """That of another pair stays where it is, and whole."""
    (full / 'old').write_text(json.dumps(dict(work_dir='of another')))
    before = (full / 'old').read_bytes()
    (tmp_path / 'old').write_bytes(bytes(10**5))
    best = SimpleNamespace(result=full / 'old', folder=tmp_path)
    with pytest.raises(OSError, match='100,000 bytes were not written'):
        load_tool('grid').keep_results([best], best)
    assert (full / 'old').read_bytes() == before


@pytest.mark.parametrize('room', [0, 2])
def test_trainings(full, image_folder, room):
    """Refused by the lock, or as the log begins: with no line more of it."""
    with open(full / 'ballast', 'r+b') as file:
        file.truncate((full / 'ballast').stat().st_size - room * 4096)
    words = [
        *('configs/scfs_r50.py', '--work-dir', full, '--cfg-options'),
        f'train_dataloader.dataset.data_root={image_folder}',
        'train_dataloader.num_workers=0',
        *(f'{key}={value}' for key, value in SHRINK.items()),
        'log_level=INFO',
    ]
    (full / '.lock').touch()
    done = refuses(full, 'tools/train.py', *words, name='scfs_r50.py')
    assert 'Traceback' not in done.output
    assert done.stderr.count('No space left') <= 2
