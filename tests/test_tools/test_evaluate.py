# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""k-NN of a checkpoint, by the commands that a user types."""

import json
import shutil

import pytest
from classification_data import make_colors
from commands import ROOT, call, refusal, run
from digit_runs import DETECT, KNN, PRETRAIN

TEST = 'tools/test.py'


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    make_colors(folder)
    return folder


@pytest.fixture
def checkpoint(pretrained, tmp_path):
    """A file that results may be written beside."""
    return shutil.copy(pretrained, tmp_path / 'epoch_14.pth')


@pytest.fixture
def options(images, tmp_path):
    """Return the options of a run in tmp_path/work on the images."""

    def options(*more, split='test'):
        return [
            *('--work-dir', tmp_path / 'work', '--cfg-options'),
            f'{split}_dataloader.dataset.data_root={images}',
            f'{split}_cfg.bank_dataloader.dataset.data_root={images}',
            *more,
        ]

    return options


def test_knn_writes_its_result_beside_the_checkpoint(
    checkpoint, options, tmp_path
):
    """By one process and by two, of the teacher and of the student."""
    settings = options('test_cfg.ks=[1,5]')
    done = call(TEST, KNN, checkpoint, *settings)
    assert done.returncode == 0, done.output
    path = tmp_path / 'epoch_14.knn_resnet18-w16_digits.json'
    result = json.loads(path.read_text())
    assert result['network'] == 'teacher'
    assert result['pretraining']['method'] == 'SCFS'
    assert result['pretraining']['epochs'] == 14
    assert result['pretraining']['batch_size'] == 128
    assert {f'knn/layer{i}_k{k}_top1' for i in (2, 3, 4) for k in (1, 5)} | {
        'knn/top1',
        'knn/k',
    } < set(result['metrics'])
    assert 'loaded 120 tensors into ResNet (layout: mmscfs, teacher' in (
        done.output
    )
    path.unlink()
    done = run('tools/dist_test.sh', KNN, checkpoint, 2, *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())['metrics'] == result['metrics']
    words = ['--pretrained', checkpoint, '--network', 'student']
    done = call(TEST, KNN, *words, *settings)
    assert done.returncode == 0, done.output
    path = tmp_path / 'epoch_14.student.knn_resnet18-w16_digits.json'
    assert json.loads(path.read_text())['network'] == 'student'


def test_a_pretraining_config_is_tested_by_its_validation(
    checkpoint, options, tmp_path
):
    config = tmp_path / 'with_knn.py'
    bases = [PRETRAIN, 'configs/_base_/datasets/digit-scenes_knn.py']
    config.write_text(f'_base_ = {[str(ROOT / base) for base in bases]}\n')
    settings = options('val_cfg.ks=[1]', split='val')
    done = call(TEST, config, checkpoint, *settings)
    assert done.returncode == 0, done.output
    (logged,) = (tmp_path / 'work').glob('*/*.json')
    assert 0 <= json.loads(logged.read_text())['knn/top1'] <= 100


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([KNN], 'give a checkpoint: of the whole model after the config'),
        ([KNN, 'a.pth', '--pretrained', 'b.pth'], 'give a checkpoint'),
        (
            [DETECT, '--pretrained', 'a.pth'],
            'evaluates a whole model: train it',
        ),
    ],
)
def test_the_checkpoint_that_is_needed_is_named(tmp_path, words, message):
    for name in ('a.pth', 'b.pth'):
        (tmp_path / name).touch()
    words = [tmp_path / w if w.endswith('.pth') else w for w in words]
    assert message in refusal(TEST, *words)


@pytest.mark.parametrize(
    ('settings', 'message', 'begun'),
    [
        # Of 48 images up to 200 neighbors.
        ([], 'error: KNNLoop: ks=[10, 20, 100, 200]', True),
        (
            ['test_cfg.bank_dataloader.dataset.data_prefix=other'],
            'test_cfg.bank_dataloader.dataset',
            False,
        ),
    ],
)
def test_bad_settings_are_refused_before_the_work(
    checkpoint, options, tmp_path, settings, message, begun
):
    assert message in refusal(TEST, KNN, checkpoint, *options(*settings))
    assert (tmp_path / 'work').exists() == begun
