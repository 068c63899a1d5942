# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What stands on the screen of a run, and what only in its log file."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from detection_data import make_data, shrink
from mmengine.config import Config
from mmengine.logging import MMLogger
from toy_runs import toy_cfg

from mmscfs.engine import prepare_config
from mmscfs.engine.screen import ScreenFilter, build_runner, source_of

DETECTOR = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
# What pycocotools and mmdet's metric print and log.
PRINTED = (
    *('loading annotations into memory...', 'creating index...', 'Done (t='),
    *('Loading and preparing results', 'Running per image evaluation...'),
    *('Accumulating evaluation results...', 'Average Precision  (AP) @'),
    *('Evaluating bbox...', 'bbox_mAP_copypaste'),
)


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


@pytest.mark.parametrize(
    ('steps', 'logged', 'expected'),
    [
        (6, [6], [6, 18]),  # the ends of short epochs
        (25, [10, 20], [10, 20, 35, 45, 60, 70]),
    ],
)
def test_short_epochs_do_not_fill_the_screen(steps, logged, expected):
    """Steps are counted over the epochs, with ten and more in between."""
    screen, found = ScreenFilter(10), []
    for epoch in range(1, 4):
        for step in logged:
            text = (
                f'Epoch(train) {f"[{epoch}]":>5}[{step:>2}/{steps}]  loss: 3'
            )
            record = logging.LogRecord('a', 20, 'f', 1, text, None, None)
            if screen.filter(record):
                found.append((epoch - 1) * steps + step)
    assert found == expected


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
    # Two more are mmengine's, on gradient accumulation.
    assert warnings == [
        'too few images',
        *(f'warning {number}' for number in range(4)),
        'and 2 more, see the log',
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


@pytest.fixture
def detector(tmp_path):
    """A detector's config, cut to a step of two images."""
    cfg = Config.fromfile(DETECTOR)
    make_data(cfg, tmp_path / 'scenes', tuple('0123456789'))
    shrink(cfg)
    cfg.log_level, cfg.work_dir = 'INFO', str(tmp_path / 'work')
    cfg.dump(tmp_path / 'my det.py')
    cfg = Config.fromfile(tmp_path / 'my det.py')
    prepare_config(cfg)
    return cfg


def test_a_detectors_screen(detector, capsys):
    build_runner(detector).train()
    print('a hook of the user')
    screen = capsys.readouterr().out
    file = Path(MMLogger.get_current_instance().log_file).read_text()
    for text in PRINTED:
        assert text not in screen, text
        assert text in file, text
    assert screen.count('coco/bbox_mAP: ') == 1
    assert len(screen.splitlines()) <= 25
    work, config = detector.work_dir, f"'{detector.filename}'"
    checkpoint = f'{work}/iter_1.pth'
    assert screen.splitlines()[-4:] == [
        f'  checkpoint   {checkpoint}',
        f'  next         python tools/test.py {config} {checkpoint}',
        f'  next         python tools/detect.py {config} {checkpoint} '
        f'NEW_IMAGES --out {work}/found',
        'a hook of the user',
    ]


@pytest.mark.parametrize(
    ('values', 'text'),
    [
        (dict(data_root='data/a', ann_file='b.json'), 'data/a'),
        (dict(data_root='', ann_file='/my/b.json'), '/my/b.json'),
        (dict(data_root='', data_prefix=dict(img='my/c')), 'my/c'),
        (dict(data_prefix='my/d'), 'my/d'),
        (dict(datasets=[1, 2]), '2 data sets'),
        (dict(), 'SimpleNamespace'),
    ],
)
def test_where_images_come_from(values, text):
    assert source_of(SimpleNamespace(**values)) == text
