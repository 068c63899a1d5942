# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import gc
import random
import signal
import subprocess
import uuid
from functools import cache, wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from chaos import make_images
from commands import CONFIG_FOLDERS, ROOT
from mmengine.config import Config, utils
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, runner

import mmscfs  # noqa: F401
from mmscfs.engine.hooks import PicturesHook
from mmscfs.engine.resume.preemption import SIGNALS, stop_listening

# Files of few long tests. Begun last, one would keep a core waiting.
LONG = (
    *('test_runs', 'test_transfer', 'test_trained_configs', 'test_processes'),
    *('test_commands', 'test_build', 'test_feature_loops', 'test_training'),
    *('test_gpu', 'test_demo', 'test_packaging', 'test_chaos'),
    *('test_equivalence', 'test_peer_configs', 'test_box_probe_loop'),
    *('test_pictures_hook', 'test_ops', 'test_evaluate', 'test_plan'),
)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish():
    """Keep what was imported out of every later collection of garbage.

    mmengine's data sets collect it each time that they are built.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def log(caplog):
    """What goes to mmengine's current logger, which does not propagate."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(autouse=True)
def _reproducible():
    """Every test starts from the same seeds and scope."""
    init_default_scope('mmpretrain')
    # Initializing a model would print a paragraph for each parameter.
    MMLogger.get_current_instance().setLevel('WARNING')
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    # The networks are tiny: threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _signals():
    """What answers signals until its process ends, ends with its test.

    A pool of processes that inherited such an answer could not be ended.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    stop_listening()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope='session', autouse=True)
def _plain_config_text():
    """Configs are dumped as they are: yapf takes longer than a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        # Upstream has imported it by then, the OneDL fork does so each time.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(
                f'{module}.FormatCode',
                lambda text, **_: (text, True),
                raising=False,
            )
        yield


@pytest.fixture(scope='session', autouse=True)
def _read_once():
    """Machine, commit, mmdet's metafiles and configs are not read again."""
    plain = Config._file2dict

    @cache
    def once(path, time, *args, **kwargs):
        return plain(path, *args, **kwargs)

    def read(filename, *args, **kwargs):
        path = Path(filename).expanduser().absolute()
        is_kept = any(map(path.is_relative_to, CONFIG_FOLDERS))
        if not (is_kept and path.is_file()):
            return plain(filename, *args, **kwargs)
        time = path.stat().st_mtime_ns
        return copy.deepcopy(once(str(path), time, *args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        for name in ('collect_env', 'get_git_hash'):  # the latter at each save
            patch.setattr(runner, name, cache(getattr(runner, name)))
        patch.setattr(utils, 'load', cache(utils.load))
        patch.setattr(Config, '_file2dict', staticmethod(read))
        yield


LOOK = PicturesHook.look


@pytest.fixture(scope='session', autouse=True)
def _no_pictures():
    """Trainings draw none, which takes longer than the tiny runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PicturesHook, 'look', lambda *_: None)
        yield


@pytest.fixture
def draws(monkeypatch):
    """Trainings draw pictures, too."""
    monkeypatch.setattr(PicturesHook, 'look', LOOK)


@pytest.fixture(scope='session', autouse=True)
def _runners_of_their_own():
    """Give every runner another name.

    Two of one name, which has the second in it, share a log and a
    visualizer; mmdet's configs give theirs a name.
    """
    original = Runner.__init__

    @wraps(original)
    def named(self, *args, experiment_name=None, **kwargs):
        name = f'{experiment_name or "test"}-{uuid.uuid4().hex}'
        if isinstance(visualizer := kwargs.get('visualizer'), dict):
            kwargs['visualizer'] = {**visualizer, 'name': name}
        original(self, *args, experiment_name=name, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, '__init__', named)
        yield


@pytest.fixture
def scfs_cfg():
    """A config of SCFS small enough for a float64 step in a test."""
    return dict(
        type='SCFS',
        backbone=dict(
            type='ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            out_indices=(1, 2, 3),
            zero_init_residual=False,
        ),
        neck=dict(
            type='DINONeck',
            in_channels=64,
            hidden_channels=16,
            bottleneck_channels=8,
            num_prototypes=12,
        ),
        search_neck=dict(
            type='FeatureSearchNeck',
            in_channels=[16, 32, 64],
            mid_channels=4,
            hidden_channels=16,
            out_channels=10,
        ),
        head=dict(type='SCFSHead'),
    )


@pytest.fixture
def dino_cfg(scfs_cfg):
    """The same network without the search."""
    del scfs_cfg['search_neck']
    scfs_cfg.update(type='DINO', head=dict(type='DINOHead'))
    return scfs_cfg


@pytest.fixture
def views():
    """Two global and three local views of four images, float64."""
    return [
        torch.randn(4, 3, size, size, dtype=torch.float64)
        for size in (64, 64, 32, 32, 32)
    ]


@pytest.fixture
def image_folder(tmp_path):
    """Sixteen small images, ImageNet-style, below tmp_path/images/train."""
    make_images(tmp_path / 'images' / 'train' / 'class', 16)
    return tmp_path / 'images'


@pytest.fixture
def tiny_run(scfs_cfg, image_folder, tmp_path):
    """configs/scfs_r50.py shrunk to 4 iterations of 4 images an epoch."""
    cfg = Config.fromfile(ROOT / 'configs/scfs_r50.py')
    cfg.model = scfs_cfg
    cfg.work_dir = str(tmp_path / 'work')
    cfg.sync_bn = None
    cfg.train_dataloader.update(
        batch_size=4, num_workers=0, persistent_workers=False
    )
    cfg.train_dataloader.dataset.data_root = str(image_folder)
    cfg.train_dataloader.dataset.pipeline[1].update(
        global_size=32, local_size=32, num_local=2
    )
    cfg.optim_wrapper.optimizer.lr = 0.01
    cfg.param_scheduler = []
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint.interval = 1
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.teacher_temp.warmup_epochs = 2
    for name in ('pictures', 'view_recall'):  # have their own tests
        cfg.default_hooks.pop(name)
    cfg.log_level = 'WARNING'
    return cfg


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 512 KiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip('no right to mount a small disk')
    yield folder
    for logger in MMLogger._instance_dict.values():
        for handler in [*logger.handlers]:  # later tests would write to it
            if str(folder) in getattr(handler, 'baseFilename', ''):
                logger.removeHandler(handler)
    subprocess.run(['umount', '--lazy', str(folder)], check=True)
