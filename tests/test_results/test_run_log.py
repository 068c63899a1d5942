# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a run's folder says about it."""

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

from mmscfs.results import (
    newest_checkpoint,
    read_log,
    read_scalars,
    read_starts,
    stitch,
)
from mmscfs.results.run_log import iterations_per_epoch


def test_the_later_start_of_a_resumed_run_counts():
    """Killed at 70 after a checkpoint at 40; then again from 80 on."""
    first = [train_line(i, loss=1.0) for i in range(10, 71, 10)]
    second = [train_line(i, loss=2.0) for i in range(50, 101, 10)]
    third = [train_line(i, loss=3.0) for i in range(90, 121, 10)]
    lines = stitch([first, second, [], third])
    assert [line['iter'] for line in lines] == list(range(10, 121, 10))
    losses = [line['loss'] for line in lines]
    assert losses == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    # Started over in the same folder.
    lines = stitch([[train_line(300)], [train_line(10)]])
    assert [line['iter'] for line in lines] == [10]


def test_validations_belong_to_what_was_trained_before_them():
    """That of epoch 1 stays; that of epoch 2 is repeated."""
    first = [train_line(40), val_line(1, 30), train_line(80), val_line(2, 1)]
    second = [train_line(50), train_line(80), val_line(2, 35)]
    lines = stitch([first, second])
    found = [(v['at'], v['knn/top1']) for v in lines if 'knn/top1' in v]
    assert found == [(40, 30), (80, 35)]


def test_damaged_lines_are_counted_but_not_one_that_is_being_written(tmp_path):
    """A full disk tore one that others follow; the last may get its end."""
    path = tmp_path / 'scalars.json'
    lines = (
        '{"loss": 1.5, "iter": 10, "note": "x", "flag": true}',
        '{"loss": 2.{"loss": 2.5, "iter": 20}',
        '{"loss": NaN, "iter": 30}',
        '[1, 2]',
        '\x00\x00',
        '[' * 20000,
        f'{{"loss": 1{"0" * 400}, "iter": 40}}',
        '{"loss": 1.0, "iter": Infinity}',
        '{"loss": 1.0, "epoch": NaN}',
        '{"loss": 3.',
    )
    path.write_text('\n'.join(lines))
    found, damaged = read_scalars(path)
    assert found[0] == {'loss': 1.5, 'iter': 10}
    assert math.isnan(found[1]['loss'])
    assert found[2]['loss'] == math.inf
    assert len(found) == 3
    assert damaged == 6
    assert read_scalars(tmp_path / 'none.json') == ([], 0)


def test_length_of_an_epoch(tmp_path):
    """46 iterations, of which every tenth is logged."""
    lines = [
        train_line(46 * epoch + i, length=46)
        for epoch in range(14)
        for i in (10, 20, 30, 40)
    ]
    write_start(tmp_path / 'a', scfs_cfg(), lines)
    assert read_log(tmp_path / 'a').epoch_length == 46
    write_start(tmp_path / 'b', detector_cfg(), detector_lines())
    assert read_log(tmp_path / 'b').epoch_length is None
    write_start(tmp_path / 'c', scfs_cfg(), [])
    assert read_log(tmp_path / 'c').epoch_length is None


def test_length_of_an_epoch_from_the_log(tmp_path):
    """Before the first epoch has ended."""
    log = write_start(tmp_path, scfs_cfg(), [train_line(10), train_line(20)])
    assert read_log(tmp_path).epoch_length == 20
    path = log.parent / '20260101_000000.log'
    line = 'INFO - Epoch(train)   [1][ 20/78]  lr: 1.0\n'
    path.write_text(path.read_text() + line)
    found = read_log(tmp_path)
    assert found.epoch_length == 78
    assert found.reached == 20 / 78
    assert found.trained[-1].environment['GPU 0'] == 'A Card'


@pytest.mark.parametrize(
    ('last', 'age', 'reached', 'state'),
    [
        (200, 0, 5, 'running'),
        (210, 3600, 5.25, 'stopped'),
        (400, 3600, 10, 'finished'),
        (400, 0, 10, 'finished'),
    ],
)
def test_progress(tmp_path, last, age, reached, state):
    write_start(tmp_path, scfs_cfg(), healthy_lines(last))
    log = read_log(tmp_path)
    assert log.reached == reached
    now = time.time() + age
    assert log.state(now) == state
    # A last validation may still follow.
    assert log.is_over(now) == (state == 'finished' and age > 0)


@pytest.mark.parametrize(('later', 'state'), [(2, 'stopped'), (60, 'running')])
def test_a_run_that_saved_itself_has_stopped_until_it_is_resumed(
    tmp_path, later, state
):
    write_start(tmp_path, scfs_cfg(), healthy_lines(200))
    log, saved = read_log(tmp_path), tmp_path / 'interrupted.pth'
    saved.touch()
    os.utime(saved, (log.written - later,) * 2)  # of its last lines, or newer
    assert log.state(log.written) == state


@pytest.mark.parametrize(
    ('epochs', 'length', 'interval', 'last', 'reached'),
    [
        # 644 iterations, the last of which are not logged.
        (14, 46, 10, 638, 14),
        # Of shorter epochs than the interval every end is logged.
        (10, 12, 50, 108, 9),
        (10, 12, 50, 120, 10),
    ],
)
def test_the_last_line_that_there_can_be_is_the_end(
    tmp_path, epochs, length, interval, last, reached
):
    lines = [train_line(i, length=length) for i in (length, last)]
    cfg = scfs_cfg(
        train_cfg=dict(max_epochs=epochs),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=interval)),
    )
    write_start(tmp_path, cfg, lines)
    assert read_log(tmp_path).reached == reached


def test_environment_and_config_are_of_the_start_that_trained(tmp_path):
    """4 processes, then 2; a test of 1; and a start too young."""
    for number, lines, time_ in (
        (4, healthy_lines(240), '20260101_000000'),
        (2, healthy_lines(first=210), '20260102_000000'),
        (1, [], '20260103_000000'),
        (3, [], '20260104_000000'),
    ):
        log = write_start(tmp_path, scfs_cfg(mark=number), lines, time_)
        path = log.parent / f'{time_}.log'
        text = path.read_text().replace('number: 4', f'number: {number}')
        path.write_text(text)
    found = read_log(tmp_path)
    assert found.cfg['mark'] == 2
    assert found.trained[-1].environment['MMEngine'] == '0.10.7'
    assert found.trained[-1].environment['GPU number'] == '2'
    assert 'late' not in found.trained[-1].environment
    assert [start.world_size for start in found.starts] == [4, 2, 1, 3]
    assert found.origin.batch_size == 16  # 2 processes of 8 images
    path.unlink()
    assert read_log(tmp_path).starts[3].world_size == 1


def test_a_test_after_the_training_does_not_change_its_start(tmp_path):
    cfg = detector_cfg()
    write_start(tmp_path, cfg, detector_lines())
    test = cfg | dict(load_from='iter_100.pth')
    log = write_start(tmp_path, test, [], '20260102_000000')
    (log.parent / '20260102_000000.json').write_text('{"pascal_voc/mAP": 1}')
    found = read_log(tmp_path)
    assert found.started_from.label == 'random'
    assert found.starts[1].test == {'pascal_voc/mAP': 1}


def test_kinds_and_configs_that_are_not_executed(tmp_path):
    evil = f'open({str(tmp_path / "evil")!r}, "w")'
    probe = dict(type='LinearProbe', head=dict(type='LinearClsHead'))
    cfgs = scfs_cfg(), detector_cfg(), scfs_cfg(model=probe)
    kinds = []
    for name, cfg in zip('abc', cfgs, strict=True):
        path = write_start(tmp_path / name, cfg, []) / 'config.py'
        path.write_text(f'{path.read_text()}\nspare = {evil}\n{evil}\n')
        kinds.append(read_log(tmp_path / name).kind)
    assert kinds == ['pre-training', 'detection', 'classification']
    assert not os.path.exists(tmp_path / 'evil')


def test_a_length_that_is_no_number():
    lines = [dict(iter=1e308, epoch=1e-308), dict(iter=8.0, epoch=2.0)]
    assert iterations_per_epoch(lines) == 4
    assert iterations_per_epoch(lines[:1]) is None


def test_a_config_of_other_parts_is_named(tmp_path):
    write_start(tmp_path, dict(model='x'), [])
    with pytest.raises(
        ValueError, match=r"config\.py': model='x' must be a dict"
    ):
        read_log(tmp_path)


@pytest.mark.parametrize('name', ['absent', 'empty'])
def test_what_is_not_a_work_directory(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    assert read_starts(tmp_path / name) == []
    with pytest.raises(ValueError, match=f"{name}' is not the.* it lacks"):
        read_log(tmp_path / name)


def test_the_newest_checkpoint_has_any_name(tmp_path):
    """As noted, wherever the folder has gone; newer files may be torn."""
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'epoch_9.pth').write_bytes(b'PK')
    note = tmp_path / 'last_checkpoint'
    note.write_text('work_dirs/before/interrupted.pth\n')
    assert newest_checkpoint(tmp_path) is None
    path = tmp_path / 'interrupted.pth'
    path.write_bytes(b'PK')
    assert newest_checkpoint(tmp_path) == path
    note.write_text('')
    assert newest_checkpoint(tmp_path) is None
