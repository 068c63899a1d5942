# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""From images to a detector, by the commands that a user types."""

import json
import re
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from commands import call, refusal, run
from digit_runs import DETECT, ONE_ITERATION, PRETRAIN, VOC_C4, coco_options


def succeed(start, *words):
    """Run or call a command that succeeds; return what it printed."""
    done = start(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def states(work_dir, pretrained):
    """Return the weights that a detector has saved and has started from."""
    return (
        torch.load(path, weights_only=True)['state_dict']
        for path in (work_dir / 'iter_1.pth', pretrained)
    )


def test_images_to_detector_to_evaluation(digit_scenes, tmp_path):
    """SCFS on a COCO image folder, Mask R-CNN from it, and its test."""
    succeed(
        *(call, 'tools/train.py', PRETRAIN),
        *('--work-dir', tmp_path / 'scfs', '--cfg-options'),
        f'train_dataloader.dataset.data_root={digit_scenes}',
        'train_dataloader.batch_size=8',
        'train_cfg.max_epochs=1',
        'param_scheduler=[]',
    )
    pretrained = tmp_path / 'scfs' / 'epoch_1.pth'
    log = succeed(
        *(call, 'tools/train.py', DETECT, '--pretrained', pretrained),
        *('--work-dir', tmp_path / 'det', *coco_options(digit_scenes)),
    )
    # stem: conv and norm (1 + 5); 16 convs and 3 shortcuts with their norms
    assert (
        'loaded 120 tensors into ResNet (layout: mmscfs, teacher; not needed: '
    ) in log
    state, start = states(tmp_path / 'det', pretrained)
    # One step of warm-up moves a weight by less than the learning rate.
    weight = 'layer3.0.conv1.weight'
    moved = state[f'backbone.{weight}'] - start[f'teacher.backbone.{weight}']
    assert moved.abs().max() < 1e-4

    succeed(
        *(call, 'tools/test.py', DETECT, tmp_path / 'det' / 'iter_1.pth'),
        *('--work-dir', tmp_path / 'test', '--show-dir', 'drawn'),
        *coco_options(digit_scenes),
    )
    (metrics,) = (tmp_path / 'test').glob('*/*.json')
    assert -1 <= json.loads(metrics.read_text())['coco/bbox_mAP'] <= 1
    assert len(list((tmp_path / 'test').glob('*/drawn/*'))) == 8


def test_two_processes_train_and_test(digit_scenes, pretrained, tmp_path):
    """Under the launchers a detector starts alike, and scores the same."""
    log = succeed(
        *(run, 'tools/dist_train.sh', DETECT, 2, '--pretrained', pretrained),
        *('--work-dir', tmp_path / 'det', *coco_options(digit_scenes)),
    )
    assert 'loaded 120 tensors into ResNet' in log
    detector = tmp_path / 'det' / 'iter_1.pth'
    found = []
    for command in (
        (run, 'tools/dist_test.sh', DETECT, detector, 2),
        (call, 'tools/test.py', DETECT, detector),
    ):
        work_dir = tmp_path / command[0].__name__
        succeed(*command, '--work-dir', work_dir, *coco_options(digit_scenes))
        (metrics,) = work_dir.glob('*/*.json')
        found.append(json.loads(metrics.read_text()))
    two, one = found
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert one[name] == two[name]


def test_c4_detector_starts_from_all_four_stages(
    digit_scenes, pretrained, tmp_path
):
    succeed(
        *(call, 'tools/train.py', VOC_C4, '--pretrained', pretrained),
        *('--work-dir', tmp_path, '--cfg-options', *ONE_ITERATION),
        f'train_dataloader.dataset.data_root={digit_scenes}/',
        f'val_dataloader.dataset.data_root={digit_scenes}/',
        'optim_wrapper.optimizer.lr=0',
    )
    state, start = states(tmp_path, pretrained)
    compared = 0
    for key, value in start.items():
        part = key.removeprefix('teacher.backbone.')
        if part != key and part.endswith('weight'):
            prefix = 'backbone.'
            if part.startswith('layer4.'):
                prefix = 'roi_head.shared_head.'
            assert torch.equal(state[prefix + part], value), part
            compared += 1
    assert compared == 2 * 20


def test_mmdets_own_way_works(digit_scenes, pretrained, tmp_path):
    """mmdet's train.py, which `mim train mmdet` runs."""
    succeed(
        *(run, sys.executable),
        Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py',
        *(DETECT, '--work-dir', tmp_path, *coco_options(digit_scenes)),
        'model.backbone.init_cfg._delete_=True',
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={pretrained}',
        'model.backbone.init_cfg.prefix=teacher.backbone.',
        'optim_wrapper.optimizer.lr=0',
    )
    state, start = states(tmp_path, pretrained)
    for layer in range(1, 5):
        weight = f'layer{layer}.1.conv2.weight'
        own = state[f'backbone.{weight}']
        assert torch.equal(own, start[f'teacher.backbone.{weight}'])


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('model.backbone.base_channels=32', 'of another shape'),
        ('model.data_preprocessor.bgr_to_rgb=False', 'BGR input'),
        ('load_from=detector.pth', 'load_from='),
        (
            'train_dataloader.dataset.ann_file=annotations/none.json',
            'none.json',
        ),
    ],
)
def test_what_does_not_fit_stops_before_the_run(
    digit_scenes, pretrained, tmp_path, setting, message
):
    """Checkpoints, settings and data; their own tests have the others."""
    (tmp_path / 'kept.txt').write_text('kept')
    error = refusal(
        *('tools/train.py', DETECT, '--pretrained', pretrained),
        *('--work-dir', tmp_path, *coco_options(digit_scenes), setting),
    )
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ['kept.txt']


def test_wrong_model_is_not_tested(digit_scenes, pretrained, tmp_path):
    work_dir = tmp_path / 'work'
    error = refusal(
        *('tools/test.py', DETECT, pretrained, '--work-dir', work_dir),
        *coco_options(digit_scenes),
    )
    name = f'checkpoint {str(pretrained)!r}: the checkpoint is not one of '
    assert error.startswith(f'error: {name}this MaskRCNN with backbone, neck,')
    assert re.search(r', but has .*\bteacher\b.*: tensors ', error)
    assert not work_dir.exists()
