# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
import os
import time

import pytest
from report_runs import (
    detector_cfg,
    detector_lines,
    healthy_lines,
    scfs_cfg,
    train_line,
    val_line,
    write_start,
)

from mmscfs.report.charts import make_charts
from mmscfs.visualization.report import read_log
from mmscfs.visualization.report.stitching import (
    iterations_per_epoch,
    read_scalars,
    stitch,
)


def iterations(lines):
    return [line['iter'] for line in lines if 'iter' in line]


def test_resumed_run_is_one_history_in_which_the_later_start_counts():
    """Killed at 70 after a checkpoint at 40; then again from 80 on."""
    first = [train_line(i, loss=1.0) for i in range(10, 71, 10)]
    second = [train_line(i, loss=2.0) for i in range(50, 101, 10)]
    third = [train_line(i, loss=3.0) for i in range(90, 121, 10)]
    lines = stitch([first, second, [], third])
    assert iterations(lines) == list(range(10, 121, 10))
    losses = [line['loss'] for line in lines]
    assert losses == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_validations_go_with_what_was_trained_before_them():
    """That of epoch 1 stays; that of epoch 2 is done again."""
    first = [train_line(40), val_line(1, 30), train_line(80), val_line(2, 1)]
    second = [train_line(50), train_line(80), val_line(2, 35)]
    lines = stitch([first, second])
    found = [(v['at'], v['knn/top1']) for v in lines if 'knn/top1' in v]
    assert found == [(40, 30), (80, 35)]


def test_begun_anew_in_the_same_folder():
    lines = stitch([[train_line(300)], [train_line(10, loss=5.0)]])
    assert iterations(lines) == [10]


def test_damaged_lines_are_counted_but_not_one_that_is_being_written(tmp_path):
    """A full disk tore one that others follow; the last may get its end."""
    path = tmp_path / 'scalars.json'
    lines = (
        '{"loss": 1.5, "iter": 10, "note": "x", "flag": true}',
        '{"loss": 2.{"loss": 2.5, "iter": 20}',
        '{"loss": NaN, "iter": 30}',
        '[1, 2]',
        '{"iter": NaN}',
        '{"iter": -1}',
        '{"iter": 1e400}',
        '\x00\x00',
        '[' * 20000,
        f'{{"loss": 1{"0" * 400}, "iter": 40}}',
        '{"loss": 3.',
    )
    path.write_text('\n'.join(lines))
    found, damaged = read_scalars(path)
    assert found[0] == {'loss': 1.5, 'iter': 10}
    assert math.isnan(found[1]['loss'])
    assert found[2]['loss'] == math.inf
    assert len(found) == 3
    assert damaged == 7
    assert read_scalars(tmp_path / 'none.json') == ([], 0)


def test_length_of_an_epoch_from_what_is_logged():
    """46 iterations, of which every tenth is logged."""
    lines = [
        dict(iter=46 * epoch + i, epoch=epoch + 1)
        for epoch in range(14)
        for i in (10, 20, 30, 40)
    ]
    assert iterations_per_epoch(lines) == 46
    assert iterations_per_epoch(detector_lines()) is None
    assert iterations_per_epoch([]) is None


def test_length_of_an_epoch_from_the_log(tmp_path):
    """Before the first epoch has ended."""
    log = write_start(tmp_path, scfs_cfg(), [train_line(10), train_line(20)])
    assert read_log(tmp_path).epoch_length == 20
    path = log.parent / '20260101_000000.log'
    line = 'INFO - Epoch(train)   [1][ 20/78]  lr: 1.0\n'
    path.write_text(path.read_text() + 'x' * 99999 + line)
    found = read_log(tmp_path)
    assert found.epoch_length == 78
    assert found.reached == 20 / 78
    assert found.environment['GPU 0'] == 'A Card'


def test_positions_in_epochs_and_iterations(tmp_path):
    write_start(tmp_path / 'a', scfs_cfg(), healthy_lines(200))
    log = read_log(tmp_path / 'a')
    assert log.position(log.train[4], True) == 50 / 40
    assert log.position(log.train[4], False) == 50
    assert log.position(log.val[1], True) == 2
    assert log.position(log.val[1], False) == 80
    write_start(tmp_path / 'b', detector_cfg(), detector_lines())
    log = read_log(tmp_path / 'b')
    assert log.position(log.val[0], False) == 100  # although it says 0


@pytest.mark.parametrize(
    ('last', 'age', 'reached', 'state'),
    [
        (200, 0, 5, 'running'),
        (210, 3600, 5.25, 'stopped'),
        (400, 3600, 10, 'finished'),
        (400, 0, 10, 'finished'),
        (390, 0, 9.75, 'running'),
    ],
)
def test_progress(tmp_path, last, age, reached, state):
    write_start(tmp_path, scfs_cfg(), healthy_lines(last))
    log = read_log(tmp_path)
    assert log.reached == reached
    now = time.time() + age
    assert log.state(now) == state
    # A last validation may still be to come.
    assert log.is_over(now) == (state == 'finished' and age > 0)


def test_the_last_line_that_there_can_be_is_the_end(tmp_path):
    """46 iterations an epoch, so 644, the last of which are not logged."""
    lines = [train_line(i, length=46) for i in (10, 638)]
    cfg = scfs_cfg(train_cfg=dict(max_epochs=14))
    write_start(tmp_path, cfg, lines)
    assert read_log(tmp_path).reached == 14


@pytest.mark.parametrize(
    ('last', 'reached', 'state'),
    [(60, 5, 'running'), (108, 9, 'running'), (120, 10, 'finished')],
)
def test_epochs_shorter_than_the_log_s_interval(
    tmp_path, last, reached, state
):
    """Of 10 epochs of 12 iterations every end is logged."""
    lines = [train_line(i, length=12) for i in range(12, last + 1, 12)]
    hooks = dict(logger=dict(type='LoggerHook', interval=50))
    write_start(tmp_path, scfs_cfg(default_hooks=hooks), lines)
    log = read_log(tmp_path)
    assert log.reached == reached
    assert log.state(time.time()) == state


def test_processes_are_those_of_the_start_that_trained(tmp_path):
    """4, then 2 from iteration 210 on; a test of 1; and a start too young."""
    for number, lines, time_ in (
        (4, healthy_lines(240), '20260101_000000'),
        (2, healthy_lines(first=210), '20260102_000000'),
        (1, [], '20260103_000000'),
        (3, [], '20260104_000000'),
    ):
        log = write_start(tmp_path, scfs_cfg(), lines, time_)
        path = log.parent / f'{time_}.log'
        text = path.read_text().replace('number: 4', f'number: {number}')
        path.write_text(text)
    found = read_log(tmp_path)
    assert found.environment['GPU number'] == '2'
    assert found.origin.batch_size == 16  # 2 processes of 8 images
    charts = {chart.title: chart for chart in make_charts({0: found}, 'a')}
    curve = charts['Images per second'].curves[0]
    rates = dict(zip(curve.x * 40, curve.y, strict=True))
    # Steps of 0.5 s, of 32 and of 16 images.
    assert (rates[200], rates[210], rates[400]) == (64, 32, 32)


def test_environment_and_batch(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), [])
    found = read_log(tmp_path)
    assert found.environment['GPU 0'] == 'A Card'
    assert found.environment['MMEngine'] == '0.10.7'
    assert 'late' not in found.environment
    assert found.world_size == 4
    assert found.origin.batch_size == 32
    (log.parent / '20260101_000000.log').unlink()
    found = read_log(tmp_path)
    assert found.environment == {}
    assert found.world_size == 1


def test_the_config_is_that_of_the_last_start_that_logged(tmp_path):
    write_start(tmp_path, scfs_cfg(mark=1), [], '20260101_000000')
    write_start(
        tmp_path, scfs_cfg(mark=2), healthy_lines(40), '20260102_000000'
    )
    write_start(tmp_path, scfs_cfg(mark=3), [], '20260103_000000')
    found = read_log(tmp_path)
    assert found.cfg['mark'] == 2
    assert len(found.starts) == 3


def test_kinds(tmp_path):
    write_start(tmp_path / 'a', scfs_cfg(), [])
    write_start(tmp_path / 'b', detector_cfg(), [])
    probe = dict(type='LinearProbe', head=dict(type='LinearClsHead'))
    write_start(tmp_path / 'c', scfs_cfg(model=probe), [])
    kinds = [read_log(tmp_path / name).kind for name in 'abc']
    assert kinds == ['pre-training', 'detection', 'classification']


def test_nothing_is_executed(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), [])
    path = log / 'config.py'
    evil = f'open({str(tmp_path / "evil")!r}, "w")'
    path.write_text(f'{path.read_text()}\nspare = {evil}\n{evil}\n')
    read_log(tmp_path)
    assert not os.path.exists(tmp_path / 'evil')
