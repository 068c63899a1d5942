# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""From a checkpoint to a detector, by the commands that a user types.

test_demo.py begins with the images.
"""

import json
import re
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from commands import call, refusal, run
from digit_runs import DETECT, ONE_ITERATION, VOC_C4, coco_options
from processes_that_meet import become_rank, run_pair

TRAIN, TEST = 'tools/train.py', 'tools/test.py'


def succeed(start, *words):
    """Run or call a command that succeeds; return what it printed."""
    done = start(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def as_one_of_two(rank, port, logs, *words):
    """Call a command as a launcher's process; log what it prints."""
    become_rank(rank, port)
    done = call(*words, '--launcher', 'pytorch')
    Path(logs, f'{rank}.log').write_text(done.output)
    sys.exit(done.returncode)


def states(work_dir, pretrained):
    """Return the weights that a detector has saved and has started from."""
    return (
        torch.load(path, weights_only=True)['state_dict']
        for path in (work_dir / 'iter_1.pth', pretrained)
    )


def test_two_processes_train_and_test(digit_scenes, pretrained, tmp_path):
    """A detector starts alike on both, and scores as on one alone."""
    options = coco_options(digit_scenes)
    folder, log = tmp_path / 'det', tmp_path / '0.log'
    words = (TRAIN, DETECT, '--pretrained', pretrained, '--work-dir', folder)
    codes = run_pair(as_one_of_two, tmp_path, *words, *options, seconds=200)
    assert codes == [0, 0], log.read_text()
    # stem: conv and norm (1 + 5); 16 convs and 3 shortcuts with their norms
    assert (
        'loaded 120 tensors into ResNet (layout: mmscfs, teacher; not needed: '
    ) in log.read_text()
    state, start = states(folder, pretrained)
    # One step of warm-up moves a weight by less than the learning rate.
    weight = 'layer3.0.conv1.weight'
    moved = state[f'backbone.{weight}'] - start[f'teacher.backbone.{weight}']
    assert 0 < moved.abs().max() < 1e-4

    words = (TEST, DETECT, folder / 'iter_1.pth', '--show-dir', 'drawn')
    one, two = (tmp_path / name for name in ('one', 'two'))
    succeed(call, *words, '--work-dir', one, *options)
    words = (*words, '--work-dir', two, *options)
    codes = run_pair(as_one_of_two, tmp_path, *words, seconds=200)
    assert codes == [0, 0], log.read_text()
    found = []
    for work_dir in (one, two):
        (metrics,) = work_dir.glob('*/*.json')
        metrics = json.loads(metrics.read_text())
        found.append([metrics[f'coco/{n}_mAP'] for n in ('bbox', 'segm')])
    assert found[0] == found[1]
    assert len(list(one.glob('*/drawn/*'))) == 8


def test_c4_detector_starts_from_all_four_stages(
    digit_scenes, pretrained, tmp_path
):
    succeed(
        *(call, TRAIN, VOC_C4, '--pretrained', pretrained),
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
        (
            'train_dataloader.dataset.ann_file=annotations/none.json',
            'none.json',
        ),
    ],
)
def test_what_does_not_fit_stops_before_the_run(
    digit_scenes, pretrained, tmp_path, setting, message
):
    (tmp_path / 'kept.txt').write_text('kept')
    error = refusal(
        *(TRAIN, DETECT, '--pretrained', pretrained),
        *('--work-dir', tmp_path, *coco_options(digit_scenes), setting),
    )
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ['kept.txt']


def test_wrong_model_is_not_tested(digit_scenes, pretrained, tmp_path):
    work_dir = tmp_path / 'work'
    error = refusal(
        *(TEST, DETECT, pretrained, '--work-dir', work_dir),
        *coco_options(digit_scenes),
    )
    name = f'checkpoint {str(pretrained)!r}: the checkpoint is not one of '
    assert error.startswith(f'error: {name}this MaskRCNN with backbone, neck,')
    assert re.search(r', but has .*\bteacher\b.*: tensors ', error)
    assert not work_dir.exists()
