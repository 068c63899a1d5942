# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/grid.py with stand-ins; test_plan.py has real trainings."""

import importlib
import json
import math
from pathlib import Path

import pytest
from commands import ROOT, stand_in
from report_runs import write_start

CONFIG = """
model = dict(type='ImageClassifier')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20)
val_evaluator = dict(type='Accuracy')
"""


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return importlib.import_module('grid')


class Trainings:
    """What tools/train.py does, as far as its folder shows it."""

    def __init__(self):
        self.score = lambda lr, decay: 50 + lr - decay
        self.metric = 'accuracy/top1'
        self.calls = []
        self.count = 0

    def __call__(self, command, log_file):
        options = dict(v.split('=', 1) for v in command if '=' in v)
        lr = float(options['optim_wrapper.optimizer.lr'])
        decay = float(options['optim_wrapper.optimizer.weight_decay'])
        self.calls.append((lr, decay))
        folder = Path(command[command.index('--work-dir') + 1])
        lines = [dict(loss=2.0, iter=i, step=i) for i in (10, 20)]
        scores = {self.metric: self.score(lr, decay), 'data_time': 0.1}
        lines.append(scores | dict(step=20))
        if '--pretrained' in command:
            # ResultFileHook: beside the checkpoint, the name always the same.
            checkpoint = Path(command[command.index('--pretrained') + 1])
            content = dict(lr=lr, work_dir=str(folder.resolve()))
            path = checkpoint.with_name(f'{checkpoint.stem}.tiny.json')
            path.write_text(json.dumps(content))
        self.count += 1
        logger = dict(type='LoggerHook', log_metric_by_epoch=False)
        cfg = dict(
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=20),
            default_hooks=dict(logger=logger),
        )
        write_start(folder, cfg, lines, f'20260101_{self.count:06d}')
        return 0


@pytest.fixture
def trainings(tool, tmp_path, monkeypatch):
    """Fake trainings, in a folder with tiny.py and epoch_1.pth."""
    monkeypatch.chdir(tmp_path)
    Path('tiny.py').write_text(CONFIG)
    Path('epoch_1.pth').touch()
    fake = Trainings()
    stand_in(monkeypatch, fake)
    return fake


def grid(tool, *words):
    return tool.main(['tiny.py', '--work-dir', 'work', *map(str, words)])


def read_json():
    return json.loads(Path('work/grid.json').read_text())


TWO_BY_TWO = ('--lr', 0.1, 0.01, '--weight-decay', 0, 0.001)


def test_default_grid_is_the_protocol(tool, trainings, capsys):
    assert grid(tool, '--dry-run', '--pretrained', 'epoch_1.pth') == 0
    lines = capsys.readouterr().out.splitlines()
    pairs = []
    for line in lines:
        words = line.split()
        assert words[1:3] == [str(ROOT / 'tools/train.py'), 'tiny.py']
        assert words[3:5] == ['--pretrained', 'epoch_1.pth']
        options = dict(v.split('=') for v in words if '=' in v)
        pairs.append([float(v) for v in options.values()])
    assert len(pairs) == 7 * 8
    rates = sorted({lr for lr, _ in pairs})
    exponents = [math.log10(lr) for lr in rates]
    expected = [-4, -3.5, -3, -2.5, -2, -1.5, -1]
    assert exponents == pytest.approx(expected, abs=1e-4)
    for rate in rates:
        # What SGD subtracts of the weights each step, before the cosine.
        none, *decays = sorted(lr * wd for lr, wd in pairs if lr == rate)
        assert none == 0
        exponents = [math.log10(decay) for decay in decays]
        expected = [-6, -5.5, -5, -4.5, -4, -3.5, -3]
        assert exponents == pytest.approx(expected, abs=1e-4)
    assert not trainings.calls
    assert not Path('work').exists()


def test_the_start_and_more_settings(tool, trainings, capsys):
    one = ('--lr', 0.01, '--weight-decay', 1e-4, '--network', 'student')
    start = ('--pretrained', 'epoch_1.pth')
    options = ('--cfg-options', 'a.b=[1,2]', 'c=d e')
    assert grid(tool, '--dry-run', *one, *start, *options) == 0
    assert capsys.readouterr().out.endswith(
        'train.py tiny.py --pretrained epoch_1.pth --network student '
        '--work-dir work/lr-0.01_wd-0.0001 --resume --cfg-options '
        "'a.b=[1,2]' 'c=d e' optim_wrapper.optimizer.lr=0.01 "
        'optim_wrapper.optimizer.weight_decay=0.01\n'
    )
    assert grid(tool, *one[:4]) == 0
    assert grid(tool, *one[:4], *start) == 2
    error = capsys.readouterr().err
    assert "grid of pretrained=None, not 'epoch_1.pth'" in error


def test_table_and_files(tool, trainings, capsys):
    assert grid(tool, *TWO_BY_TWO, '--cfg-options', 'seed=1') == 0
    # The decay that the optimizer gets is 0.001 over the rate.
    assert trainings.calls == [
        (0.01, 0.0),
        (0.01, pytest.approx(0.1)),
        (0.1, 0.0),
        (0.1, pytest.approx(0.01)),
    ]
    content = read_json()
    assert content['best'] == dict(lr=0.1, weight_decay=0.0)
    settings = content['settings']
    assert settings['cfg_options'] == ['seed=1']
    assert settings['pretrained'] is None
    step = content['steps']['lr-0.01_wd-0.001']
    assert step['facts'] == dict(lr=0.01, weight_decay=0.001)
    score = pytest.approx(50 + 0.01 - 0.1)
    assert step['metrics'] == {'accuracy/top1': score}
    assert step['problem'] == ''
    text = Path('work/grid.md').read_text()
    assert '# Grid: tiny from random weights' in text
    rows = [
        line.replace('*', '').split('|')[1:4] for line in text.splitlines()
    ]
    assert [' 0.01 ', ' 50.0 ', ' 49.9 '] in rows
    assert [' 0.1 ', ' 50.1 ', ' 50.1 '] in rows
    best = 'best: lr-0.1_wd-0, accuracy/top1 50.10'
    assert best in text
    assert best in capsys.readouterr().out


def test_a_second_call_runs_what_is_missing(tool, trainings, capsys):
    assert grid(tool, *TWO_BY_TWO) == 0
    trainings.calls.clear()
    assert grid(tool, *TWO_BY_TWO) == 0
    assert trainings.calls == []
    assert grid(tool, '--lr', 0.1, 1, '--weight-decay', 0) == 0
    assert trainings.calls == [(1.0, 0.0)]
    assert read_json()['best'] == dict(lr=1.0, weight_decay=0.0)
    rows = Path('work/grid.md').read_text()  # of the earlier calls, too
    assert '| **0.01** | **50.0** | **49.9** |' in rows
    assert '| **1** | **51.0** | **-** |' in rows
    # A run that was killed halfway is resumed.
    (log,) = Path('work/lr-1_wd-0').glob('*/vis_data/scalars.json')
    log.write_text(log.read_text().split('\n')[0] + '\n')
    assert grid(tool, '--lr', 1, '--weight-decay', 0, '--dry-run') == 0
    assert 'work/lr-1_wd-0 --resume' in capsys.readouterr().out
    assert grid(tool, '--lr', 0.1, 1, '--weight-decay', 0) == 0
    assert trainings.calls == [(1.0, 0.0)] * 2


def test_the_result_beside_the_checkpoint_is_the_best_run_s(tool, trainings):
    trainings.score = lambda lr, decay: 50 - (math.log10(lr) + 2) ** 2
    lrs = (0.001, 0.01, 0.1)
    words = ('--lr', *lrs, '--weight-decay', 0, '--pretrained', 'epoch_1.pth')
    assert grid(tool, *words) == 0
    name = 'epoch_1.tiny.json'
    for lr in lrs:
        own = json.loads(Path(f'work/lr-{lr}_wd-0/{name}').read_text())
        assert own['lr'] == lr
    assert json.loads(Path(name).read_text())['lr'] == 0.01


def test_a_result_that_another_pair_replaced(tool, trainings, capsys):
    """Where two end at the same time, the best one's file may be lost."""
    words = ('--lr', 0.1, 1, '--weight-decay', 0, '--pretrained')
    assert grid(tool, *words, 'epoch_1.pth') == 0
    shared, lost = 'epoch_1.tiny.json', 'work/lr-1_wd-0/epoch_1.tiny.json'
    Path(shared).write_text(Path(f'work/lr-0.1_wd-0/{shared}').read_text())
    Path(lost).unlink()
    assert grid(tool, *words, 'epoch_1.pth') == 0
    said = 'lr-1_wd-0: another pair ended at the same time and replaced its '
    assert said in capsys.readouterr().out
    assert not Path(shared).exists()


def test_metric(tool, trainings, capsys):
    one = ('--lr', 0.1, '--weight-decay', 0)
    trainings.metric = 'single-label/recall'
    assert grid(tool, *one) == 0
    note = 'best: lr-0.1_wd-0, single-label/recall 50.10'
    assert note in Path('work/grid.md').read_text()
    assert grid(tool, *one, '--metric', 'accuracy/top1') == 2
    error = capsys.readouterr().err
    assert 'has no accuracy/top1 in its log' in error
    assert error.strip().endswith('one of single-label/recall')


def test_a_bad_config_or_a_damaged_grid(tool, trainings, capsys):
    Path('tiny.py').write_text("model = dict(type='ImageClassifier')")
    assert grid(tool) == 2
    assert 'tiny.py has no optim_wrapper.optim' in capsys.readouterr().err
    Path('tiny.py').write_text(CONFIG)
    Path('work').mkdir()
    Path('work/grid.json').write_text('{"runs')
    assert grid(tool) == 2
    assert 'work/grid.json is damaged' in capsys.readouterr().err
    assert not trainings.calls
