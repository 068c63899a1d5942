# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What tools/sweep.py and grid.py share, and a sweep of real trainings."""

import fcntl
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
from types import SimpleNamespace

import pytest
from classification_data import draw
from commands import ROOT, load_tool, stand_in

plan = load_tool('plan')
CONFIG = str(ROOT / 'configs/scfs_r50.py')
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

    stand_in(monkeypatch, call)
    assert start('--work-dir', 'work') == 130
    assert 'the same command resumes' in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


class Line(plan.Step):
    """A step that runs a line of a shell, and is done if that has said so."""

    def command(self, gpus):
        return ['sh', '-c', self.config]

    def reached(self):
        self.facts['said'] = self.log.read_text() if self.log.is_file() else ''
        is_done = self.facts['said'].endswith('done\n')
        return {}, '' if is_done else 'not done'


def make_plan(folder, **lines):
    """A plan of lines by name; one named a_b starts from a."""
    steps = {}
    for name, line in lines.items():
        more = dict(settings=[], goal='result', start=steps.get(name[:-2]))
        steps[name] = Line(name=name, config=line, **more)
    return plan.Plan(
        folder / 'plan.json',
        {},
        [*steps.values()],
        lambda steps: (plan.Summary('', '', [], []), {}),
    )


def options(*lanes):
    """Arguments of a command, with what each lane's environment has more."""
    return SimpleNamespace(gpus=None, dry_run=False, lanes=lanes)


def wait_for(are_there):
    deadline = time.monotonic() + 60
    while not are_there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_steps_side_by_side(tmp_path):
    """Two at a time, each on its device; none before what it starts from."""
    meet = 'touch {0}; until [ -e {1} ]; do sleep 0.05; done; {2}'
    say = 'echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS done'
    a, b = tmp_path / 'a', tmp_path / 'b'
    found = make_plan(
        tmp_path,
        a=meet.format(a / 'here', b / 'here', say),
        a_c=f'ls {a}/here && {say}',
        b=meet.format(b / 'here', a / 'here', 'sleep 1; exit 3'),
        b_d=say,
    )
    lanes = [
        dict(CUDA_VISIBLE_DEVICES=d, OMP_NUM_THREADS='2') for d in ('4', '5,6')
    ]
    assert found.carry_out(options(*lanes)) == 1
    steps = found.steps
    assert steps['a'].facts['said'] == '4 2 done\n'
    # On the device that is free, while b sleeps on the other.
    assert steps['a_c'].facts['said'].endswith('here\n4 2 done\n')
    assert steps['b'].problem.startswith('exit code 3: see the log')
    assert steps['b_d'].problem == 'not done'
    assert not steps['b_d'].log.exists()


def test_a_log_in_use_is_not_started_twice(tmp_path):
    """Nor after a kill that left the process running."""
    log = tmp_path / 'test.log'
    with open(log, 'a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = subprocess.Popen(['sleep', '60'], stdout=file)
    problem = plan.Job(['true'], log, {}).outcome()
    assert problem == f'it is running already, and writes to {log}'
    process.kill()
    process.wait()
    job = plan.Job(['true'], log, {})
    wait_for(lambda: job.outcome() is not None)
    assert job.outcome() == ''


@pytest.mark.parametrize('how', ['SIGTERM', 'SIGKILL'])
def test_a_tool_that_is_killed_ends_its_commands(tmp_path, how):
    """As on a cluster whose time is up: they save first.

    After SIGTERM, which it can answer, it waits for them.
    """

    def run():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        make_plan(tmp_path, a=SAVES, b=SAVES).carry_out(options({}, {}))

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    logs = [tmp_path / name / 'test.log' for name in 'ab']

    def all_say(word):
        return all(
            log.is_file() and log.read_text().endswith(word) for log in logs
        )

    wait_for(lambda: all_say('started\n'))
    os.kill(process.pid, signal.Signals[how])
    process.join(60)
    assert process.exitcode
    if how == 'SIGKILL':
        wait_for(lambda: all_say('saved\n'))
    assert all_say('saved\n')


@pytest.mark.parametrize(
    ('start', 'words', 'error'),
    [
        ('sweep', '--gpus 0', '--gpus: 0 must be a whole number >= 1'),
        ('grid', '--jobs 2 --devices 0 1', 'not allowed with argument --jobs'),
        ('sweep', '--cfg-options a', "'a' is not KEY=VALUE, e.g. "),
        ('grid', '--lr 0', "--lr: '0' must be above 0"),
        ('grid', '--network student', '--network requires --pretrained'),
        (
            'sweep',
            '--gpus 2 --devices 0,1 2',
            '--devices 2 names 1 GPUs, but each run has 2',
        ),
    ],
    indirect=['start'],
)
def test_bad_arguments(start, capsys, words, error):
    with pytest.raises(SystemExit) as caught:
        start(*words.split())
    assert caught.value.code == 2
    assert error in capsys.readouterr().err
    assert not Path('work_dirs').exists()


@pytest.mark.parametrize(
    ('words', 'lanes'),
    [
        ('', [{}]),
        ('--devices 3', [dict(CUDA_VISIBLE_DEVICES='3')]),
        ('--jobs 2', [dict(OMP_NUM_THREADS='1')] * 2),
        (
            '--gpus 2 --devices 0,1 2,3',
            [
                dict(CUDA_VISIBLE_DEVICES=d, OMP_NUM_THREADS='1')
                for d in ('0,1', '2,3')
            ],
        ),
    ],
)
def test_lanes(monkeypatch, words, lanes):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    args = load_tool('grid').parse_args([CONFIG, *words.split()])
    assert args.lanes == lanes
    assert args.work_dir == Path('work_dirs/grid_scfs_r50')


# Through the real commands


def test_a_variant_through_k_nn(tmp_path, monkeypatch):
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
    stand_in(monkeypatch, run)
    words = [str(ROOT / 'configs/sweeps/contrast-modes_digits.py')]
    words += ['--work-dir', str(tmp_path / 'work'), '--variants']
    words += ['dino', '--cfg-options']
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
    assert '**DINO (data)**' in text
    content = json.loads((tmp_path / 'work/sweep.json').read_text())
    step = content['steps']['dino/knn_resnet18-w16_digits']
    assert 0 <= step['metrics']['knn/top1'] <= 100
    assert (tmp_path / 'work/dino/epoch_1.pth').is_file()
