# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What tools/sweep.py and grid.py share, and a sweep of real trainings."""

import importlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classification_data import draw
from commands import ROOT, load_tool

plan = load_tool('plan')
GRID = """
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(max_epochs=2)
val_evaluator = dict(type='Accuracy')
"""
SWEEP = "variants = [dict(name='one', config='grid.py')]\n"
# A process that needs a second to end.
SAVES = """
trap 'sleep 1; echo saved; exit 75' TERM
echo started
while :; do sleep 0.05; done
"""


@pytest.fixture(params=['sweep', 'grid'])
def start(request, tmp_path, monkeypatch):
    """A function that calls one of both on a list or a config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    Path('grid.py').write_text(GRID)
    Path('sweep.py').write_text(SWEEP)
    main = importlib.import_module(request.param).main
    return lambda *words: main([f'{request.param}.py', *words])


def test_sigterm_ends_the_tool(start, monkeypatch, capsys):
    """And leaves the handler from before in place."""
    before = signal.getsignal(signal.SIGTERM)

    def call(command, log):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr('plan.call', call)
    assert start('--work-dir', 'work') == 130
    assert 'the same command resumes' in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_log_in_use_is_not_started_twice(tmp_path):
    """Nor after a kill that left the process running."""
    log = tmp_path / 'train.log'
    with open(log, 'a') as file:
        plan.fcntl.flock(file, plan.fcntl.LOCK_EX)
        process = subprocess.Popen(['sleep', '60'], stdout=file)
    problem = plan.run_logged(['true'], log)
    assert problem == f'it is running already, and writes to {log}'
    process.kill()
    process.wait()
    assert plan.run_logged(['true'], log) == ''


def test_a_terminated_tool_ends_its_command(tmp_path):
    """As on a cluster whose time is up, and waits for it: it saves first."""
    log = tmp_path / 'train.log'

    def run():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        plan.run_logged(['sh', '-c', SAVES], log)

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().endswith('\n')):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.join(60)
    assert process.exitcode
    assert log.read_text().endswith('saved\n')


@pytest.mark.parametrize(
    ('start', 'words', 'error'),
    [
        ('sweep', '--gpus 0', '--gpus: 0 must be a whole number >= 1'),
        ('grid', '--gpus 0', '--gpus: 0 must be a whole number >= 1'),
        ('sweep', '--cfg-options a', "'a' is not KEY=VALUE, e.g. "),
        ('grid', '--cfg-options a', "'a' is not KEY=VALUE, e.g. "),
        ('sweep', '--seeds a', '--seeds: a must be a whole number >= 0'),
        ('sweep', '--eval-cfg-options a', "'a' is not KEY=VALUE, e.g. "),
        ('grid', '--lr 0', '--lr 0 must be above 0'),
        ('grid', '--lr nan', '--lr nan must be above 0'),
        (
            'grid',
            '--weight-decay -0.1',
            '--weight-decay -0.1 must be 0 or more',
        ),
        ('grid', '--network student', '--network requires --pretrained'),
    ],
    indirect=['start'],
)
def test_bad_arguments(start, capsys, words, error):
    with pytest.raises(SystemExit) as caught:
        start(*words.split())
    assert caught.value.code == 2
    assert error in capsys.readouterr().err
    assert not Path('work_dirs').exists()


# Through the real commands


def test_two_variants_through_k_nn(tmp_path, monkeypatch):
    """The command lines, checkpoints and results of the real tools."""
    root = tmp_path / 'data'
    for split in ('train', 'val'):
        for i in range(8):
            draw(root / split / str(i // 4) / f'{i}.jpg', i // 4, i)

    def run(command, _):
        monkeypatch.setattr(sys, 'argv', command[1:])
        monkeypatch.syspath_prepend(ROOT / 'tools')
        runpy.run_path(command[1], run_name='__main__')
        return 0

    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    tool = importlib.import_module('sweep')
    monkeypatch.setattr('plan.call', run)
    words = [str(ROOT / 'configs/sweeps/contrast-modes_digits.py')]
    words += ['--work-dir', str(tmp_path / 'work'), '--variants']
    words += ['dino', 'scfs-wo-mc-alone', '--cfg-options']
    words += [
        f'train_dataloader.dataset.data_root={root}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'multi_crop.global_size=32',
        'model.neck.hidden_channels=16',
        'model.backbone.stem_channels=8',
        'model.backbone.base_channels=8',
        'train_cfg.max_epochs=1',
        '--eval-cfg-options',
        f'test_dataloader.dataset.data_root={root}',
        f'test_cfg.bank_dataloader.dataset.data_root={root}',
        'test_dataloader.num_workers=0',
        'test_cfg.bank_dataloader.num_workers=0',
        'test_cfg.ks=[1]',
        'model.backbone.stem_channels=8',
        'model.backbone.base_channels=8',
    ]
    assert tool.main(words) == 0
    text = (tmp_path / 'work/sweep.md').read_text()
    ours = [line.strip('|* ') for line in text.splitlines() if '**' in line]
    modes = ['DINO (data)', 'SCFS w/o MC, search alone (data)']
    assert [line.split('**')[0] for line in ours] == modes
    content = json.loads((tmp_path / 'work/sweep.json').read_text())
    for name in ('dino', 'scfs-wo-mc-alone'):
        step = content['steps'][f'{name}/knn_resnet18-w16_digits']
        assert 0 <= step['metrics']['knn/top1'] <= 100
        assert (tmp_path / 'work' / name / 'epoch_1.pth').is_file()
    # The search between global views is all that moved the student.
    dumped = tmp_path / 'work/scfs-wo-mc-alone'
    (log,) = dumped.glob('*/vis_data/scalars.json')
    lines = map(json.loads, log.read_text().splitlines())
    losses = next(line for line in lines if 'loss' in line)
    terms = {k: v for k, v in losses.items() if k.startswith('loss_')}
    assert {k for k, v in terms.items() if v} == {
        f'loss_layer{i}_search' for i in (2, 3, 4)
    }
