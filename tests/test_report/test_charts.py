# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
from report_runs import (
    K,
    detector_cfg,
    detector_lines,
    healthy_lines,
    scfs_cfg,
    train_line,
    write_start,
)

from mmscfs.report.charts import POINTS, make_charts, style_of, thin
from mmscfs.results import read_log

TOP = math.log(K)


def charts_of(*runs):
    """Return the charts of runs by title."""
    names = [f'run {number}' for number in range(len(runs))]
    return {c.title: c for c in make_charts(dict(enumerate(runs)), names)}


@pytest.fixture
def run(tmp_path):
    """Write a run and read it."""

    def run(lines, cfg=None, name='a'):
        write_start(tmp_path / name, cfg or scfs_cfg(), lines)
        return read_log(tmp_path / name)

    return run


def bands(chart):
    """Return the shaded ranges of a figure, the lowest first."""
    shapes = [s for s in chart.figure.layout.shapes if s.type == 'rect']
    return sorted((shape.y0, shape.y1) for shape in shapes)


def curve(chart, number=0):
    """Return the trace of a run's line."""
    (found,) = [t for t in chart.figure.data if t.name == f'run {number}']
    return found


def words(chart):
    return [a.text for a in chart.figure.layout.annotations if a.text]


def test_what_is_logged_has_a_chart(run):
    assert list(charts_of(run(healthy_lines()))) == [
        'k-NN accuracy',
        'k-NN accuracy, layer3',
        'k-NN accuracy, layer4',
        'Total loss',
        'Loss, last layer',
        'layer2, global term',
        'layer2, search term',
        'Teacher entropy',
        'KL, teacher to student',
        'Spread of features',
        'Norm of the center',
        'Teacher entropy, layer2',
        'Learning rate',
        'Teacher temperature',
        'Teacher momentum',
        'Time of a step',
        'Wait for data',
        'Images per second',
    ]
    peer = run([dict(loss=7.0, lr=0.1, epoch=1, iter=10, step=10)], name='p')
    assert list(charts_of(peer)) == ['Total loss', 'Learning rate']
    lines = [
        train_line(i, weight_decay=decay, memory=2000, loss_new=1.0)
        for i, decay in ((10, 0.04), (20, 0.05))
    ]
    found = charts_of(run(lines, name='b'))
    assert {'Weight decay', 'Memory', 'loss_new'} <= {*found}
    assert found['Weight decay'].latest == '0.05'


def test_values_are_those_of_the_log(run):
    """8 images in each of 4 processes, in half a second."""
    found = charts_of(run(healthy_lines()))
    assert np.all(curve(found['Images per second']).y == 64)
    assert np.all(curve(found['Wait for data']).y == 0.1)
    assert np.all(curve(found['Time of a step']).y == 0.5)
    accuracy = curve(found['k-NN accuracy, layer3'])
    assert accuracy.x.tolist() == list(range(1, 11))
    assert accuracy.y.tolist() == [10 + 3 * epoch for epoch in range(1, 11)]
    assert found['k-NN accuracy'].latest == '50 %'
    detector = charts_of(run(detector_lines(), detector_cfg(), 'b'))
    assert detector['Box AP, VOC'].latest == '50 %'
    assert curve(detector['Box AP, VOC']).x.tolist() == [100]


def test_speed_is_that_of_the_processes_of_each_start(tmp_path):
    """4 processes, then 2 from iteration 210 on, in epochs of 40."""
    for number, lines, at in (
        (4, healthy_lines(240), '20260101_000000'),
        (2, healthy_lines(first=210), '20260102_000000'),
    ):
        log = write_start(tmp_path, scfs_cfg(), lines, at)
        path = log.parent / f'{at}.log'
        text = path.read_text().replace('number: 4', f'number: {number}')
        path.write_text(text)
    speed = curve(charts_of(read_log(tmp_path))['Images per second'])
    rates = dict(zip(speed.x * 40, speed.y, strict=True))
    # Steps of 0.5 s, of 32 and of 16 images.
    assert (rates[200], rates[210], rates[400]) == (64, 32, 32)


def test_limits_are_those_of_the_monitor(run):
    hook = dict(type='CollapseMonitorHook', tolerance=0.02, min_divergence=0.1)
    cfg = scfs_cfg(default_hooks=dict(x=hook))
    found = charts_of(run(healthy_lines(), cfg))
    low, high = bands(found['Teacher entropy'])
    assert low == (0, pytest.approx(0.02 * TOP))
    assert high == pytest.approx((0.98 * TOP, TOP))
    assert words(found['Teacher entropy']) == [f'ln K = {TOP:.2f}']
    (band,) = bands(found['KL, teacher to student'])
    assert band == (0, pytest.approx(0.1 * TOP))
    (band,) = bands(found['Loss, last layer'])
    assert band == pytest.approx((0.98 * TOP, 1.02 * TOP))
    assert bands(found['Total loss']) == []
    # That of the loss has its weight, beside that of a run of weight 1.
    model = scfs_cfg()['model'] | dict(head=dict(loss_weight=0.5))
    half = run(healthy_lines(), scfs_cfg(model=model), 'half')
    found = charts_of(half, run(healthy_lines(), name='b'))
    below, above = bands(found['Loss, last layer'])
    assert below == pytest.approx((0.4975 * TOP, 0.5025 * TOP))
    assert above == pytest.approx((0.995 * TOP, 1.005 * TOP))
    assert f'0.5 ln K = {TOP / 2:.2f}' in words(found['Loss, last layer'])
    assert len(bands(found['Teacher entropy'])) == 2
    model['head']['loss_weight'] = 0
    none = run(healthy_lines(), scfs_cfg(model=model), 'c')
    assert bands(charts_of(none)['Loss, last layer']) == []


def test_runs_of_several_lengths_share_axis_and_color(run):
    """Epochs of 40 and of 20 iterations; one run has no validation."""
    short = [train_line(i, length=20) for i in range(10, 201, 10)]
    found = charts_of(run(healthy_lines()), run(short, name='b'))
    loss = found['Total loss']
    assert [curve(loss, number).x[-1] for number in (0, 1)] == [10, 10]
    groups = {t.legendgroup for t in found['k-NN accuracy'].figure.data}
    assert groups == {'0'}
    colors = {
        (trace.legendgroup, trace.line.color)
        for chart in found.values()
        for trace in chart.figure.data
    }
    assert len(colors) == 2
    assert len({style_of(number) for number in range(21)}) == 21
    assert found['Total loss'].figure.layout.xaxis.title.text == 'epoch'
    detector = run(detector_lines(), detector_cfg(), 'c')
    layout = charts_of(detector)['Total loss'].figure.layout
    assert layout.xaxis.title.text == 'iteration'


def test_a_resumption_is_marked(tmp_path):
    """Resumed from iteration 200, in epochs of 40."""
    write_start(tmp_path, scfs_cfg(), healthy_lines(240))
    write_start(
        tmp_path, scfs_cfg(), healthy_lines(first=210), '20260102_000000'
    )
    chart = charts_of(read_log(tmp_path))['Total loss']
    mark = chart.figure.data[-1]
    assert mark.mode == 'markers'
    assert mark.x.tolist() == [210 / 40]
    assert mark.y.tolist() == pytest.approx([9 - 210 / 400])


def test_curve_of_many_values_has_their_means():
    x = np.arange(5.0 * POINTS)
    y = np.where(x % 5 == 0, 10.0, 0.0)
    y[5:10] = math.nan
    y[12] = math.inf
    at, mean, per_point = thin(x, y)
    assert (per_point, len(at)) == (5, POINTS)
    assert at[:3].tolist() == [2, 7, 12]
    assert mean[0] == 2  # of 10, 0, 0, 0, 0
    assert math.isnan(mean[1])
    assert mean[2] == 2.5  # of 10, 0, 0, 0
    odd = np.arange(2.0 * POINTS + 1)
    at, mean, per_point = thin(odd, odd)
    assert per_point == 3
    assert (at[-1], mean[-1]) == (2 * POINTS - 0.5, 2 * POINTS - 0.5)
    # Few values are all there.
    _, mean, per_point = thin(np.arange(3.0), np.array([1, math.inf, 3]))
    assert per_point == 1
    np.testing.assert_equal(mean, [1, math.nan, 3])
