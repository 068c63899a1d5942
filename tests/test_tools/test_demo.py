# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
from statistics import mean

import cv2
from commands import call, load_tool

TINY = (
    *('--cfg-options', 'train_dataloader.batch_size=16'),
    'default_hooks.view_recall.num_images=32',
    '--detector-options',
    'train_cfg.max_iters=2',
    'train_dataloader.batch_size=2',
    'param_scheduler=[]',
    'default_hooks.checkpoint.interval=2',
)


def test_demo_ends_with_table_and_pictures(tmp_path):
    """A demo of few iterations goes all the way on a few scenes."""
    data, work = tmp_path / 'scenes', tmp_path / 'work'
    done = call(
        *('tools/demo.py', '--data', data, '--work-dir', work, '--seeds', 3),
        *('--scenes', 64, 16, *TINY),
    )
    assert done.returncode == 0, done.output
    assert 'One seed cannot tell' in done.stdout
    figures = json.loads((work / 'demo.json').read_text())
    for value in figures['view_recall'].values():
        assert 0 <= value <= 100
    assert [*figures['detectors']] == ['random', 'DINO', 'SCFS']
    for scores in figures['detectors'].values():
        assert {name: len(v) for name, v in scores.items()} == {
            'box AP': 1,
            'mask AP': 1,
        }
    steps = [s for name, s in figures['seconds'].items() if name != 'all']
    assert len(steps) == 6
    assert 0 < sum(steps) < figures['seconds']['all']
    run = '48-images_seed-3'
    for start, layout in (
        ('random', None),
        ('DINO', 'dino'),
        ('SCFS', 'scfs'),
    ):
        log = (work / 'detectors' / start / run / 'train.log').read_text()
        assert ('into ResNet' in log) == (layout is not None)
        if layout:
            assert f'mmscfs::{layout}_resnet18-w16_digit-cards: loaded' in log
    report = (work / 'report.html').read_text()
    for name in ('>work<', f'random/{run}<', f'DINO/{run}<', f'SCFS/{run}<'):
        assert name in report
    for name in ('search_maps.png', 'detections.png'):
        picture = cv2.imread(str(work / name))
        assert picture.shape[0] > 400
        assert picture.std() > 10


def test_several_seeds_have_standard_errors(capsys):
    tool = load_tool('demo')
    args = tool.argparse.Namespace(seeds=[0, 1, 2], scenes=[3000, 600])
    aps = dict(random=[10, 12, 14], DINO=[11, 11, 11], SCFS=[16, 17, 18])
    detectors = {
        start: {'box AP': box, 'mask AP': [ap / 2 for ap in box]}
        for start, box in aps.items()
    }
    recall = dict(before=1.0, after=20.0)
    tool.show(args, dict(view_recall=recall, detectors=detectors))
    text = capsys.readouterr().out
    assert 'view recall 1.0 % before, 20.0 % after' in text
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:3]]
        for cells in (line.strip('│').split('│') for line in text.splitlines())
        if len(cells) > 2
    }
    # A deviation of 2 over the root of 3; the pairs differ by 6, 5 and 4.
    assert rows['random'] == ['12.0 ± 1.2', '6.0 ± 0.6']
    assert rows['DINO'] == ['11.0 ± 0.0', '5.5 ± 0.0']
    assert rows['SCFS less random'] == ['+5.0 ± 0.6', '+2.5 ± 0.3']
    assert rows['SCFS less DINO'] == [
        f'+{mean([5, 6, 7]):.1f} ± 0.6',
        '+3.0 ± 0.3',
    ]
    assert 'One seed' not in text
