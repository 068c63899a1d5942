# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""From images to a detector, by the commands that a user types."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from processes_that_meet import free_port

ROOT = Path(__file__).parent.parent.parent
PRETRAIN = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
DETECT = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
VOC_C4 = 'configs/detection/digits/faster-rcnn_r18-w16-c4_demo_digits-voc.py'


def run(*command):
    """Run a command in the repository; return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def launch(script, *words):
    """Run a launcher's script in the repository."""
    return subprocess.run(
        [script, *map(str, words)],
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
def scenes(tmp_path_factory):
    """Sixteen training and eight validation scenes, COCO and VOC."""
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    maker = 'tools/dataset_converters/make_digit_scenes.py'
    sizes = ['--train', 16, '--val', 8, '--workers', 0]
    assert run(maker, '--out', folder, *sizes).returncode == 0
    return folder


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A raw checkpoint of the demo's model; the teacher is not the student."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(ROOT / PRETRAIN).model)
    model.init_weights()
    for parameter in model.teacher.parameters():
        parameter.data.mul_(0.9)
    path = tmp_path_factory.mktemp('pretrained') / 'epoch_14.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=14)), path)
    return path


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / 'work'


def coco_options(scenes):
    return [
        *(
            f'{split}_dataloader.dataset.data_root={scenes}'
            for split in ('train', 'val', 'test')
        ),
        *(
            f'{split}_evaluator.ann_file={scenes}/annotations/'
            'instances_val.json'
            for split in ('val', 'test')
        ),
        'val_dataloader.dataset.indices=8',
        'test_dataloader.dataset.indices=8',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.logger.interval=1',
    ]


def train(work_dir, scenes, *options, config=DETECT, cfg_options=()):
    return run(
        'tools/train.py',
        config,
        *('--work-dir', work_dir),
        *options,
        *('--cfg-options', *coco_options(scenes), *cfg_options),
    )


def test_images_to_detector_to_evaluation(scenes, work_dir):
    """SCFS on a COCO image folder, Mask R-CNN from it, and its test."""
    process = run(
        'tools/train.py',
        PRETRAIN,
        *('--work-dir', work_dir / 'scfs'),
        '--cfg-options',
        f'train_dataloader.dataset.data_root={scenes}',
        'train_dataloader.batch_size=8',
        'train_cfg.max_epochs=1',
        'param_scheduler=[]',
    )
    assert process.returncode == 0, process.stderr
    checkpoint = work_dir / 'scfs' / 'epoch_1.pth'

    process = train(work_dir / 'det', scenes, '--pretrained', checkpoint)
    assert process.returncode == 0, process.stderr
    log = process.stdout + process.stderr
    # stem: conv and norm (1 + 5); 16 convs and 3 shortcuts with their norms
    assert (
        'loaded 120 tensors into ResNet (layout: mmscfs, teacher; left: '
    ) in log
    detector = work_dir / 'det' / 'iter_1.pth'
    state = torch.load(detector, weights_only=True)['state_dict']
    start = torch.load(checkpoint, weights_only=True)['state_dict']
    # One step of warm-up moves a weight by less than the learning rate.
    weight = 'layer3.0.conv1.weight'
    moved = state[f'backbone.{weight}'] - start[f'teacher.backbone.{weight}']
    assert moved.abs().max() < 1e-4

    process = run(
        'tools/test.py',
        DETECT,
        detector,
        *('--work-dir', work_dir / 'test', '--show-dir', 'drawn'),
        *('--cfg-options', *coco_options(scenes)),
    )
    assert process.returncode == 0, process.stderr
    (metrics,) = (work_dir / 'test').glob('*/*.json')
    assert -1 <= json.loads(metrics.read_text())['coco/bbox_mAP'] <= 1
    assert len(list((work_dir / 'test').glob('*/drawn/*'))) == 8


def test_two_processes_train_and_test(scenes, checkpoint, work_dir):
    """Under the launchers a detector starts alike, and scores the same."""
    launched = launch(
        *('tools/dist_train.sh', DETECT, 2, '--work-dir', work_dir / 'det'),
        *('--pretrained', checkpoint),
        *('--cfg-options', *coco_options(scenes)),
    )
    assert launched.returncode == 0, launched.stderr
    assert 'loaded 120 tensors into ResNet' in (
        launched.stdout + launched.stderr
    )
    together = launch(
        *('tools/dist_test.sh', DETECT, work_dir / 'det' / 'iter_1.pth', 2),
        *('--work-dir', work_dir / 'two'),
        *('--cfg-options', *coco_options(scenes)),
    )
    assert together.returncode == 0, together.stderr
    alone = run(
        *('tools/test.py', DETECT, work_dir / 'det' / 'iter_1.pth'),
        *('--work-dir', work_dir / 'one'),
        *('--cfg-options', *coco_options(scenes)),
    )
    assert alone.returncode == 0, alone.stderr
    (one,), (two,) = (
        (work_dir / name).glob('*/*.json') for name in ('one', 'two')
    )
    one, two = (json.loads(path.read_text()) for path in (one, two))
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert one[name] == two[name]


def test_c4_detector_starts_from_all_four_stages(scenes, checkpoint, work_dir):
    process = run(
        'tools/train.py',
        VOC_C4,
        *('--work-dir', work_dir, '--pretrained', checkpoint),
        '--cfg-options',
        f'train_dataloader.dataset.data_root={scenes}/',
        f'val_dataloader.dataset.data_root={scenes}/',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1',
        'optim_wrapper.optimizer.lr=0',
    )
    assert process.returncode == 0, process.stderr
    state = torch.load(work_dir / 'iter_1.pth', weights_only=True)
    state = state['state_dict']
    start = torch.load(checkpoint, weights_only=True)['state_dict']
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


def test_mmdets_own_way_works(scenes, checkpoint, work_dir):
    """mmdet's train.py, which `mim train mmdet` runs."""
    trainer = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    process = run(
        trainer,
        DETECT,
        *('--work-dir', work_dir, '--cfg-options', *coco_options(scenes)),
        'model.backbone.init_cfg._delete_=True',
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        'model.backbone.init_cfg.prefix=teacher.backbone.',
        'optim_wrapper.optimizer.lr=0',
    )
    assert process.returncode == 0, process.stderr
    state = torch.load(work_dir / 'iter_1.pth', weights_only=True)
    start = torch.load(checkpoint, weights_only=True)['state_dict']
    for layer in range(1, 5):
        weight = f'layer{layer}.1.conv2.weight'
        assert torch.equal(
            state['state_dict'][f'backbone.{weight}'],
            start[f'teacher.backbone.{weight}'],
        )


class Malicious:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.fixture
def bad_checkpoint(request, tmp_path, checkpoint):
    """A file that must be refused, by the test's parameter."""
    path = tmp_path / 'bad.pth'
    content = torch.load(checkpoint, weights_only=True)
    if request.param == 'truncated':
        path.write_bytes(checkpoint.read_bytes()[:100_000])
    elif request.param == 'code':
        path.write_bytes(pickle.dumps(Malicious(tmp_path / 'ran')))
    elif request.param == 'detector':
        state = dict(content['state_dict'])
        state = {
            key: value
            for key, value in state.items()
            if key.startswith('backbone.')
        }
        state['rpn_head.rpn_conv.weight'] = torch.zeros(1, 1)
        torch.save(dict(state_dict=state, meta={}), path)
    elif request.param == 'no teacher':
        state = {
            key: value
            for key, value in content['state_dict'].items()
            if not key.startswith('teacher.')
        }
        torch.save(dict(state_dict=state), path)
    return path


@pytest.mark.parametrize(
    ('bad_checkpoint', 'options', 'message'),
    [
        ('missing', [], 'no checkpoint'),
        ('truncated', [], 'is damaged'),
        ('code', [], 'refused checkpoint'),
        ('detector', [], 'checkpoint of a detector (rpn_head)'),
        (
            'no teacher',
            ['--network', 'teacher'],
            'this checkpoint has no teacher',
        ),
    ],
    indirect=['bad_checkpoint'],
)
def test_bad_checkpoint_stops_before_the_run(
    scenes, work_dir, tmp_path, bad_checkpoint, options, message
):
    process = train(work_dir, scenes, '--pretrained', bad_checkpoint, *options)
    assert process.returncode == 1
    assert message in process.stderr
    assert process.stderr.count('error: ') == 1
    assert 'Traceback' not in process.stderr
    assert not work_dir.exists()
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('cfg_options', 'message'),
    [
        (['model.backbone.depth=50'], 'tensors'),
        (['model.backbone.base_channels=32'], 'of another shape'),
        (['model.data_preprocessor.bgr_to_rgb=False'], 'BGR input'),
        (['load_from=detector.pth'], 'load_from='),
        (
            ['train_dataloader.dataset.ann_file=annotations/none.json'],
            'none.json',
        ),
        (['train_dataloader.dataset.data_prefix.img=val'], 'val'),
        (['model.roi_head.bbox_head.num_classes=80'], 'num_classes'),
        (
            ['train_dataloader.dataset.metainfo.classes="(\'cat\',)"'],
            'cat',
        ),
    ],
)
def test_bad_setting_stops_before_the_run(
    scenes, checkpoint, work_dir, cfg_options, message
):
    work_dir.mkdir()
    (work_dir / 'kept.txt').write_text('kept')
    process = train(
        work_dir,
        scenes,
        *('--pretrained', checkpoint),
        cfg_options=cfg_options,
    )
    assert process.returncode == 1
    assert message in process.stderr
    assert process.stderr.startswith('error: ')
    assert 'Traceback' not in process.stderr
    assert [path.name for path in work_dir.iterdir()] == ['kept.txt']


def test_caffe_style_model_is_refused(tmp_path, work_dir):
    """A ResNet-50 of ours does not fit mmdet's caffe-style C4 model."""
    import torchvision

    path = tmp_path / 'resnet50.pth'
    torch.save(torchvision.models.resnet50().state_dict(), path)
    process = run(
        'tools/train.py',
        Path(mmdet.__file__).parent
        / '.mim/configs/mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py',
        *('--work-dir', work_dir, '--pretrained', path, '--cfg-options'),
        'model.data_preprocessor.bgr_to_rgb=True',
        'model.data_preprocessor.mean=[123.675,116.28,103.53]',
        'model.data_preprocessor.std=[58.395,57.12,57.375]',
    )
    assert process.returncode == 1
    assert "style='caffe'" in process.stderr
    assert not work_dir.exists()


def test_wrong_model_is_not_tested(scenes, checkpoint, work_dir):
    process = run(
        'tools/test.py',
        DETECT,
        checkpoint,
        *('--work-dir', work_dir),
        *('--cfg-options', *coco_options(scenes)),
    )
    assert process.returncode == 1
    assert 'not one of this MaskRCNN' in process.stderr
    assert not work_dir.exists()
