# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json

import cv2
from commands import call


def test_demo_ends_with_table_and_pictures(tmp_path):
    """A demo of two iterations each goes all the way on a few scenes."""
    data, work = tmp_path / 'scenes', tmp_path / 'work'
    done = call(
        'tools/dataset_converters/make_digit_scenes.py',
        *('--out', data, '--train', 128, '--val', 24, '--workers', 0),
    )
    assert done.returncode == 0, done.output
    done = call(
        *('tools/demo.py', '--data', data, '--work-dir', work),
        *('--scenes', 128, 24, '--cfg-options', 'train_cfg.max_epochs=1'),
        '--detector-options',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'train_dataloader.batch_size=2',
        'val_dataloader.dataset.indices=24',
        'param_scheduler=[]',
        'default_hooks.checkpoint.interval=2',
    )
    assert done.returncode == 0, done.output
    assert 'SCFS teacher' in done.stdout
    results = json.loads((work / 'demo.json').read_text())
    for network in ('random', 'SCFS teacher'):
        for part in ('views', 'detectors'):
            figures = results[part][network].values()
            assert len(figures) == 3
            assert all(0 <= value <= 100 for value in figures)
    logs = [
        (work / f'mask-rcnn_{start}' / 'train.log').read_text()
        for start in ('scfs', 'random')
    ]
    assert 'into ResNet (layout: mmscfs, teacher' in logs[0]
    assert 'into ResNet' not in logs[1]
    report = (work / 'report.html').read_text()
    for run in ('work', 'mask-rcnn_random', 'mask-rcnn_scfs'):
        assert f'>{run}<' in report
    for name in ('search_maps.png', 'detections.png'):
        picture = cv2.imread(str(work / name))
        assert picture.shape[0] > 400
        assert picture.std() > 10
