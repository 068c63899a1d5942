# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Workers that die or hang: an error in time, which names the image."""

import gc
import multiprocessing
import os
import runpy
import signal
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import get_worker_info

from mmscfs.datasets import worker_notes
from mmscfs.datasets.transforms import loading
from mmscfs.datasets.worker_notes import naming_images
from mmscfs.engine import prepare_config
from mmscfs.engine.prepare import LOADER_SECONDS

VIEWS = [
    dict(type='LoadImage'),
    dict(type='MultiCrop', global_size=16, local_size=8, num_local=1),
    dict(type='PackInputs'),
]


@pytest.fixture
def images(tmp_path):
    for i in range(8):
        image = np.full((12, 16, 3), 20 * i, np.uint8)
        assert cv2.imwrite(str(tmp_path / f'{i}.jpg'), image)
    return tmp_path


@pytest.fixture(autouse=True)
def _end_workers():
    """Not by torch, which gives each five seconds to end by itself."""
    yield
    for child in multiprocessing.active_children():
        # Torch raises in whatever runs when a worker of its dies.
        with suppress(RuntimeError):
            child.kill()
            child.join(5)
    gc.collect()


def batches(folder, **settings):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=2,
            multiprocessing_context='fork',
            dataset=dict(
                type='ImageFiles',
                data_root=str(folder),
                pipeline=VIEWS,
                serialize_data=False,
            ),
            sampler=dict(type='KeyedSampler', shuffle=False),
            **settings,
        ),
        seed=0,
    )
    return list(loader)


def spy_on_reading(monkeypatch, act):
    """Have workers call act(path) where they would look at a file."""

    def check(path):
        if get_worker_info() is not None:
            act(path)

    monkeypatch.setattr(loading, 'check_regular', check)


def error_of(*args, **settings):
    """Return the error of reading all batches, and how long it took."""
    start = time.monotonic()
    with pytest.raises(RuntimeError) as caught, naming_images():
        batches(*args, **settings)
    return str(caught.value), time.monotonic() - start


def test_nothing_is_said_without_need(images):
    with naming_images():
        assert len(batches(images, timeout=60)) == 4
    with pytest.raises(RuntimeError, match='^a bug$'), naming_images():
        raise RuntimeError('a bug')


def test_a_worker_that_is_killed(images, monkeypatch):
    """As by the kernel when the memory runs out."""

    def act(path):
        if path.endswith('5.jpg'):
            os.kill(os.getpid(), signal.SIGKILL)

    spy_on_reading(monkeypatch, act)
    text, seconds = error_of(images)
    assert 'DataLoader worker (pid' in text
    assert f'while reading {images}/5.jpg' in text
    assert '--resume' in text
    assert seconds < 20


def test_a_worker_that_is_killed_later(images, monkeypatch):
    """While it makes views of the image."""

    class Killer:
        def __call__(self, results):
            if results['img_path'].endswith('5.jpg'):
                os.kill(os.getpid(), signal.SIGKILL)
            return results

    build = Runner.build_dataloader

    def with_killer(*args, **kwargs):
        loader = build(*args, **kwargs)
        loader.dataset.pipeline.transforms.insert(1, Killer())
        return loader

    monkeypatch.setattr(Runner, 'build_dataloader', with_killer)
    text, _ = error_of(images)
    assert f'last read {images}/5.jpg' in text


@pytest.mark.parametrize('persistent', [False, True])
def test_a_worker_that_hangs(images, monkeypatch, persistent):
    """In opening a pipe, as it would on a server that is gone.

    It is deaf to SIGTERM, as a process that waits for a network file system
    is to all but SIGKILL, and yet is ended.
    """
    pipe = images / 'pipe'
    os.mkfifo(pipe)

    def act(path):
        if path.endswith('5.jpg'):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            pipe.read_bytes()

    spy_on_reading(monkeypatch, act)
    text, seconds = error_of(images, timeout=3, persistent_workers=persistent)
    assert text.startswith('DataLoader timed out after 3 seconds (worker ')
    assert f'has been reading {images}/5.jpg for' in text
    for part in ('train_dataloader.timeout', '--resume'):
        assert part in text
    process = int(text.split('worker ')[1].split()[0])
    assert process not in [c.pid for c in multiprocessing.active_children()]
    # The other worker waits for work, and has nothing to do with it.
    assert text.count('.jpg') == 1
    assert 3 <= seconds < 25


def test_a_hang_that_is_not_of_images(images, monkeypatch):
    class Sleeper:
        def __call__(self, results):
            time.sleep(3)
            return results

    build = Runner.build_dataloader

    def with_sleeper(*args, **kwargs):
        loader = build(*args, **kwargs)
        loader.dataset.pipeline.transforms.insert(0, Sleeper())
        return loader

    monkeypatch.setattr(Runner, 'build_dataloader', with_sleeper)
    text, _ = error_of(images, timeout=1)
    assert 'no worker is reading an image' in text


def test_notes():
    path = '/data/é \udcff.jpg'
    worker_notes.begin(path)
    note = worker_notes.read(os.getpid())
    assert note[:1] + note[2:] == (os.getpid(), True, path)
    assert 0 <= time.monotonic() - note.start < 5
    worker_notes.end()
    note = worker_notes.read(os.getpid())
    assert (note.is_reading, note.path) == (False, path)
    # The end of a path that is too long.
    path = '/'.join(['folder'] * 500) + '/a.jpg'
    worker_notes.begin(path)
    kept = worker_notes.read(os.getpid()).path
    assert path.endswith(kept)
    assert len(kept) > 900
    # A process whose id shares the slot is no one.
    assert worker_notes.read(os.getpid() + worker_notes.SLOTS) is None
    worker_notes.end()


# Settings


def test_every_loader_with_workers_has_a_limit():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=2, timeout=7),
            val_cfg=dict(bank_dataloader=dict(num_workers=1, timeout=0)),
            test_dataloader=dict(num_workers=0, timeout=9),
        )
    )
    prepare_config(cfg)
    assert cfg.train_dataloader.timeout == LOADER_SECONDS >= 300
    assert cfg.val_dataloader.timeout == 7
    assert cfg.val_cfg.bank_dataloader.timeout == 0
    assert 'timeout' not in cfg.test_dataloader


def test_training_names_images(tiny_run, tmp_path, monkeypatch):
    """The command itself, but for the run."""

    class Stuck:
        def train(self):
            worker_notes.begin('/data/a.jpg')
            process = os.getpid()
            raise RuntimeError(
                f'DataLoader worker (pid {process}) is killed by signal: 9.'
            )

    path = tmp_path / 'config.py'
    tiny_run.dump(path)
    tools = Path(__file__).parents[2] / 'tools'
    monkeypatch.syspath_prepend(tools)
    monkeypatch.setattr('sys.argv', ['train.py', str(path)])
    train = runpy.run_path(str(tools / 'train.py'))['main']
    monkeypatch.setitem(train.__globals__, 'build_runner', lambda cfg: Stuck())
    with pytest.raises(RuntimeError, match='while reading /data/a.jpg'):
        train()
    worker_notes.end()
