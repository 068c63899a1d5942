# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What stands on the screen of a run, and what only in its log file."""

import logging
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from toy_runs import toy_cfg

from mmscfs.engine import prepare_config
from mmscfs.engine.screen import ScreenFilter, build_runner


def shown(message, level=logging.INFO, **extra):
    record = logging.LogRecord('a', level, 'f', 1, message, None, None)
    vars(record).update(extra)
    return ScreenFilter().filter(record)


def test_what_the_screen_leaves_to_the_file():
    assert shown('Epoch(train) [1][5/62]  loss: 3')
    assert not shown('Config:\nmodel = dict()')
    assert shown('This run:\n  images 3', screen=True)
    assert shown('12 images\nwere skipped', logging.WARNING)
    assert not shown('"FileClient" will be deprecated', logging.WARNING)


@pytest.fixture
def lines(tiny_run, capsys):
    """Train two epochs; return the lines of the screen and of the file."""
    tiny_run.log_level = 'INFO'
    tiny_run.optim_wrapper.update(accumulative_counts=2, precision='fp32')
    tiny_run.filename = 'configs/mine.py'
    prepare_config(tiny_run)
    runner = build_runner(tiny_run, ['param_scheduler.1: end 200 -> 2'])
    runner.logger.warning('too few images\nfor anything')
    for number in range(5):
        runner.logger.warning(f'warning {number}')
    runner.train()
    file = MMLogger.get_current_instance().log_file
    with open(file) as text:
        return capsys.readouterr().out.splitlines(), text.read().splitlines()


def test_a_run_says_what_it_is_and_what_follows(lines, tiny_run):
    screen, file = lines
    first = next(i for i, line in enumerate(screen) if 'Epoch(train)' in line)
    assert first <= 28
    start = screen.index('This run:')
    rows = [line.split(maxsplit=1) for line in screen[start + 1 : first]]
    warnings = [text for name, text in rows if name == 'warning']
    # Two more are mmengine's, on gradient accumulation, and the monitor's.
    assert warnings == [
        'too few images',
        *(f'warning {number}' for number in range(4)),
        'and 3 more, see the log',
    ]
    block = {name: text for name, text in rows if name != 'warning'}
    work, folder = tiny_run.work_dir, tiny_run.train_dataloader.dataset
    log = block.pop('log')
    assert log.startswith(work)
    assert block == dict(
        model='SCFS ResNet-18-w8',
        images=f'16 of {folder.data_root}',
        length='2 epochs x 4 steps, 8 in all',
        batch='8 (4 images x 2 accumulated)',
        rate='at most 0.01',
        precision='fp32',
        device='cpu, 1 process',
        start='random',
        fitted='param_scheduler.1: end 200 -> 2',
    )
    assert screen[-3:] == [
        f'  checkpoint   {work}/epoch_2.pth',
        f'  next         python tools/analysis_tools/report.py {work}',
        '  next         python tools/recipe.py --detector ANNOTATIONS '
        f'--images FOLDER --pretrained {work}/epoch_2.pth --out my_det.py',
    ]
    for part in ('Config:', 'System environment:', 'Hooks will be executed'):
        assert not any(part in line for line in screen)
        assert any(part in line for line in file)
    assert all(line in '\n'.join(file) for line in screen[start + 1 : first])


def test_a_refused_run_leaves_the_work_directory_as_it_was(tmp_path):
    """Saved within an epoch, and resumed with another batch."""
    cfg = Config(toy_cfg(tmp_path).to_dict(), filename=__file__)
    first = build_runner(cfg)
    first.train()
    Path(first.log_dir).rename(tmp_path / 'first')  # not of this second
    cfg.resume, cfg.load_from = True, str(tmp_path / 'iter_8.pth')
    before = {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')}
    assert tmp_path / Path(__file__).name in before
    cfg.train_dataloader.batch_size = 5
    with pytest.raises(ValueError, match='has 2 batches now'):
        build_runner(cfg).train()
    cfg.model = dict(type='NoModel')
    with pytest.raises(KeyError, match='NoModel'):
        build_runner(cfg)
    after = {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')}
    assert after == before


def test_one_learning_rate(lines):
    for line in lines[0]:
        if 'Epoch(train)' in line:
            assert line.count('lr: ') == 1
            assert 'lr: 1.0000e-02' in line
