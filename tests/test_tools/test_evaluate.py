# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""k-NN and linear sweep of a checkpoint, by the commands that a user types."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from processes_that_meet import free_port

ROOT = Path(__file__).parent.parent.parent
PRETRAIN = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
KNN = 'configs/classification/knn/knn_resnet18-w16_digits.py'
SWEEP = 'configs/classification/linear/linear-sweep_resnet18-w16_digits.py'


def run(*command, **kwargs):
    """Run a command in the repository; return the finished process."""
    return subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHON': sys.executable,
            'PORT': str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Three classes of colours, four images to learn and three to test."""
    folder = tmp_path_factory.mktemp('data')
    generator = np.random.default_rng(0)
    for label in range(3):
        colour = generator.integers(0, 256, 3)
        for split, count in (('train', 4), ('val', 3)):
            (folder / split / str(label)).mkdir(parents=True)
            for i in range(count):
                noise = generator.normal(0, 60, (64, 64, 3))
                image = (colour + noise).clip(0, 255).astype(np.uint8)
                name = folder / split / str(label) / f'{i}.png'
                assert cv2.imwrite(str(name), image)
    return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A raw checkpoint of the demo's model; the teacher is not the student."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / PRETRAIN)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for parameter in model.teacher.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp('pretrained') / 'epoch_14.pth'
    meta = dict(epoch=14, cfg=cfg.pretty_text, world_size=2)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture
def checkpoint(weights, tmp_path):
    return shutil.copy(weights, tmp_path / 'epoch_14.pth')


def options(images, tmp_path, *more, split='test'):
    return [
        *('--work-dir', tmp_path / 'work'),
        '--cfg-options',
        f'{split}_dataloader.dataset.data_root={images}',
        f'{split}_cfg.bank_dataloader.dataset.data_root={images}',
        *more,
    ]


def test_knn_writes_its_result_beside_the_checkpoint(
    images, checkpoint, tmp_path
):
    """By one process and by two, of the teacher and of the student."""
    settings = options(images, tmp_path, 'test_cfg.ks=[1,5]')
    done = run(sys.executable, 'tools/test.py', KNN, checkpoint, *settings)
    assert done.returncode == 0, done.stderr
    path = tmp_path / 'epoch_14.knn_resnet18-w16_digits.json'
    result = json.loads(path.read_text())
    assert result['network'] == 'teacher'
    assert result['pretraining']['method'] == 'SCFS'
    assert result['pretraining']['epochs'] == 14
    assert result['pretraining']['batch_size'] == 128
    assert {f'knn/layer{i}_k{k}_top1' for i in (2, 3, 4) for k in (1, 5)} | {
        'knn/top1',
        'knn/k',
    } == set(result['metrics'])
    assert 'loaded 120 tensors into ResNet (layout: mmscfs, teacher' in (
        done.stdout + done.stderr
    )
    path.unlink()
    done = run('tools/dist_test.sh', KNN, checkpoint, 2, *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())['metrics'] == result['metrics']
    done = run(
        *(sys.executable, 'tools/test.py', KNN, '--pretrained', checkpoint),
        *('--network', 'student', *settings),
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / 'epoch_14.student.knn_resnet18-w16_digits.json'
    student = json.loads(path.read_text())
    assert student['network'] == 'student'


def test_linear_sweep(images, checkpoint, tmp_path):
    done = run(
        *(sys.executable, 'tools/test.py', SWEEP, '--pretrained', checkpoint),
        *options(images, tmp_path, 'test_cfg.learning_rates=[0.1,1]'),
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / 'epoch_14.linear-sweep_resnet18-w16_digits.json'
    metrics = json.loads(path.read_text())['metrics']
    assert set(metrics) == {
        'linear/layer4_lr0.1_top1',
        'linear/layer4_lr1_top1',
        'linear/top1',
        'linear/lr',
    }


def test_a_pretraining_config_is_tested_by_its_validation(
    images, checkpoint, tmp_path
):
    config = tmp_path / 'with_knn.py'
    config.write_text(
        f'_base_ = [{str(ROOT / PRETRAIN)!r}, '
        f'{str(ROOT / "configs/_base_/datasets/digit-scenes_knn.py")!r}]\n'
    )
    settings = options(images, tmp_path, 'val_cfg.ks=[1]', split='val')
    done = run(sys.executable, 'tools/test.py', config, checkpoint, *settings)
    assert done.returncode == 0, done.stderr
    logged = (tmp_path / 'work').glob('*/*.json')
    metrics = json.loads(next(logged).read_text())
    assert 0 <= metrics['knn/top1'] <= 100


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give a checkpoint: of the whole model after the config'),
        (['a.pth', '--pretrained', 'b.pth'], 'give a checkpoint'),
    ],
)
def test_one_checkpoint_is_needed(arguments, message):
    done = run(sys.executable, 'tools/test.py', KNN, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_whole_model_needs_its_own_checkpoint(checkpoint):
    config = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
    done = run(
        *(sys.executable, 'tools/test.py', config, '--pretrained', checkpoint)
    )
    assert done.returncode == 1
    assert 'evaluates a whole model: train it' in done.stderr


def test_too_large_a_k_is_refused_before_the_work(
    images, checkpoint, tmp_path
):
    done = run(
        *(sys.executable, 'tools/test.py', KNN, checkpoint),
        *options(images, tmp_path),  # of 12 images up to 200 neighbours
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: KNNLoop: ks=[10, 20, 100, 200]')
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (
            'test_cfg.bank_dataloader.dataset.data_prefix=other',
            'test_cfg.bank_dataloader.dataset',
        ),
        ('test_dataloader.dataset.with_label=False', 'no label'),
    ],
)
def test_bad_data_is_refused_before_the_work(
    images, checkpoint, tmp_path, setting, message
):
    done = run(
        *(sys.executable, 'tools/test.py', KNN, checkpoint),
        *options(images, tmp_path, setting),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'work').exists()
