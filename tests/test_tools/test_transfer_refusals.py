# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a detector does not start from, or is not tested with."""

import re
from pathlib import Path

import mmdet
import pytest
import torch
from commands import refusal
from digit_runs import DETECT, coco_options


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / 'work'


@pytest.fixture
def bad_checkpoint(request, tmp_path, pretrained):
    """A file that must be refused, by the test's parameter."""
    path = tmp_path / 'bad.pth'
    state = torch.load(pretrained, weights_only=True)['state_dict']
    if request.param == 'truncated':
        path.write_bytes(pretrained.read_bytes()[:100_000])
    elif request.param == 'detector':
        state = {k: v for k, v in state.items() if k.startswith('backbone.')}
        state['rpn_head.rpn_conv.weight'] = torch.zeros(1, 1)
        torch.save(dict(state_dict=state, meta={}), path)
    elif request.param == 'no teacher':
        state = {k: v for k, v in state.items() if 'teacher' not in k}
        torch.save(dict(state_dict=state), path)
    return path


@pytest.mark.parametrize(
    ('bad_checkpoint', 'options', 'message'),
    [
        ('missing', [], 'no checkpoint'),
        ('truncated', [], 'is damaged'),
        ('detector', [], "': this is the checkpoint of a detector (rpn_head"),
        ('no teacher', ['--network', 'teacher'], 'has no teacher'),
    ],
    indirect=['bad_checkpoint'],
)
def test_bad_checkpoint_stops_before_the_run(
    digit_scenes, work_dir, bad_checkpoint, options, message
):
    error = refusal(
        *('tools/train.py', DETECT, '--pretrained', bad_checkpoint),
        *(*options, '--work-dir', work_dir, *coco_options(digit_scenes)),
    )
    assert message in error
    assert str(bad_checkpoint) in error
    assert not work_dir.exists()


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('model.backbone.depth=50', 'tensors'),
        ('model.backbone.base_channels=32', 'of another shape'),
        ('model.data_preprocessor.bgr_to_rgb=False', 'BGR input'),
        ('load_from=detector.pth', 'load_from='),
        (
            'train_dataloader.dataset.ann_file=annotations/none.json',
            'none.json',
        ),
        ('train_dataloader.dataset.data_prefix.img=val', 'val'),
        ('model.roi_head.bbox_head.num_classes=80', 'num_classes'),
        ('train_dataloader.dataset.metainfo.classes="(\'cat\',)"', 'cat'),
    ],
)
def test_bad_setting_stops_before_the_run(
    digit_scenes, pretrained, work_dir, setting, message
):
    work_dir.mkdir()
    (work_dir / 'kept.txt').write_text('kept')
    error = refusal(
        *('tools/train.py', DETECT, '--pretrained', pretrained),
        *('--work-dir', work_dir, *coco_options(digit_scenes), setting),
    )
    assert message in error
    assert [path.name for path in work_dir.iterdir()] == ['kept.txt']


def test_caffe_style_model_is_refused(tmp_path, work_dir):
    """A ResNet-50 of ours does not fit mmdet's caffe-style C4 model."""
    import torchvision

    path = tmp_path / 'resnet50.pth'
    torch.save(torchvision.models.resnet50().state_dict(), path)
    name = 'configs/mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'
    error = refusal(
        *('tools/train.py', Path(mmdet.__file__).parent / '.mim' / name),
        *('--work-dir', work_dir, '--pretrained', path, '--cfg-options'),
        'model.data_preprocessor.bgr_to_rgb=True',
        'model.data_preprocessor.mean=[123.675,116.28,103.53]',
        'model.data_preprocessor.std=[58.395,57.12,57.375]',
    )
    assert "style='caffe'" in error
    assert not work_dir.exists()


def test_wrong_model_is_not_tested(digit_scenes, pretrained, work_dir):
    error = refusal(
        *('tools/test.py', DETECT, pretrained, '--work-dir', work_dir),
        *coco_options(digit_scenes),
    )
    name = f'checkpoint {str(pretrained)!r}: the checkpoint is not one of '
    assert error.startswith(f'error: {name}this MaskRCNN with backbone, neck,')
    assert re.search(r', but has .*\bteacher\b.*: tensors ', error)
    assert not work_dir.exists()
