# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
import subprocess
import sys
from statistics import mean

import cv2
from commands import ROOT, call, load_tool, stand_in
from mmengine.config import Config

LOADER = ('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0')
TINY = (
    *('--cfg-options', 'train_dataloader.batch_size=16', LOADER[0]),
    'default_hooks.view_recall.num_images=32',
    *('train_cfg.max_epochs=2', 'train_dataloader.persistent_workers=False'),
    *('--detector-options', 'train_cfg.max_iters=2', *LOADER),
    'train_dataloader.batch_size=2',
    *(f'{s}_dataloader.persistent_workers=False' for s in ('train', 'val')),
    'param_scheduler=[]',
    'default_hooks.checkpoint.interval=2',
)


def test_demo_ends_with_table_and_pictures(tmp_path, monkeypatch):
    """A demo of few iterations goes all the way on a few scenes.

    Its commands, and the trainings that they start, run in this process.
    """
    start = subprocess.run

    def call_here(command, *words, **settings):
        if command[0] != sys.executable:
            return start(command, *words, **settings)
        return call(*command[1:])

    def train_here(command, log):
        done = call(*command[1:])
        log.write(done.output)
        log.flush()
        return done.returncode

    monkeypatch.setattr(subprocess, 'run', call_here)
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    stand_in(monkeypatch, train_here)
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
        folder = work / 'detectors' / start / run
        log = (folder / 'train.log').read_text()
        assert ('into ResNet' in log) == (layout is not None)
        (used,) = folder.glob('*/vis_data/config.py')
        cfg = Config.fromfile(used)
        assert cfg.randomness.seed == 3
        assert len(cfg.train_dataloader.dataset.indices) == 48
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
