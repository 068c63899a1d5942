# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a report says, before a browser shows it."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from report_runs import (
    K,
    detector_cfg,
    detector_lines,
    healthy_lines,
    scfs_cfg,
    train_line,
    val_line,
    write_picture,
    write_start,
)

from mmscfs.engine.hooks import CollapseMonitorHook
from mmscfs.results import Result, read_log, write_result
from mmscfs.visualization.report import make_page
from mmscfs.visualization.report.charts import (
    Plotter,
    health_charts,
    loss_charts,
    schedule_charts,
    score_charts,
    speed_charts,
)
from mmscfs.visualization.report.drawing import (
    draw_chart,
    shorten,
    style_of,
    to_rows,
)
from mmscfs.visualization.report.facts import (
    describe,
    detections,
    differences,
    last_score,
    machine,
    results,
)
from mmscfs.visualization.report.health import monitor_of
from mmscfs.visualization.report.page import describe_state, name_runs
from mmscfs.visualization.report.pictures import choose, find_pictures, show


def run(folder, cfg=None, lines=(), **kwargs):
    write_start(folder, cfg or scfs_cfg(), lines, **kwargs)
    return read_log(folder)


def make_result(protocol, metrics):
    return Result(
        protocol=protocol,
        dataset='digits',
        config=protocol,
        checkpoint=None,
        network=None,
        pretraining=dict(method=None, epochs=1, batch_size=8, dataset=None),
        backbone='ResNet-18',
        metrics=metrics,
        settings={},
        work_dir='x',
        epoch=1,
    )


def plotter(*logs):
    monitors = [monitor_of(log, CollapseMonitorHook) for log in logs]
    return Plotter(dict(enumerate(logs)), dict(enumerate(monitors)))


def by_title(charts):
    return {chart.title: chart for chart in charts if chart is not None}


def test_bands_are_those_of_the_monitor(tmp_path):
    monitor = dict(tolerance=0.02, min_divergence=0.03)
    hooks = dict(x=dict(monitor, type='CollapseMonitorHook'))
    log = run(tmp_path, scfs_cfg(default_hooks=hooks), healthy_lines())
    charts = by_title(health_charts(plotter(log)))
    top = math.log(K)
    upper, lower = charts['Teacher entropy'].edges
    assert upper == (pytest.approx(0.98 * top), top, f'ln K = {top:.2f}')
    assert lower == (0, pytest.approx(0.02 * top), '0')
    (edge,) = charts['KL, teacher to student'].edges
    assert edge[:2] == (0, pytest.approx(0.03 * top))
    assert charts['Spread of features'].edges == []
    charts = by_title(loss_charts(plotter(log)))
    (edge,) = charts['Loss, last layer'].edges
    assert edge[:2] == (pytest.approx(0.98 * top), pytest.approx(1.02 * top))
    assert charts['Total loss'].edges == []


def test_the_guess_s_loss_has_the_loss_s_weight(tmp_path):
    model = scfs_cfg()['model'] | dict(head=dict(loss_weight=0.5))
    log = run(tmp_path / 'a', scfs_cfg(model=model), healthy_lines())
    plot = plotter(log)
    (edge,) = by_title(loss_charts(plot))['Loss, last layer'].edges
    guess = 0.5 * math.log(K)
    assert edge[:2] == (
        pytest.approx(0.995 * guess),
        pytest.approx(1.005 * guess),
    )
    assert edge[2] == f'0.5 ln K = {guess:.2f}'
    upper = by_title(health_charts(plot))['Teacher entropy'].edges[0]
    assert upper[1] == pytest.approx(math.log(K))
    # Beside one without a weight, both.
    other = run(tmp_path / 'b', None, healthy_lines())
    charts = by_title(loss_charts(plotter(log, other)))
    assert len(charts['Loss, last layer'].edges) == 2
    model['head']['loss_weight'] = 0
    log = run(tmp_path / 'c', scfs_cfg(model=model), healthy_lines())
    charts = by_title(loss_charts(plotter(log)))
    assert charts['Loss, last layer'].edges == []


def test_skipped_steps_are_told(tmp_path):
    """The first 10 of 40 lines have 6 skipped steps of 10."""
    lines = [
        train_line(i, skipped=0.6 if i <= 100 else 0.0)
        for i in range(10, 401, 10)
    ]
    log = run(tmp_path / 'a', None, lines)
    (series,) = by_title(health_charts(plotter(log)))['Skipped steps'].series
    assert series.curve.y.tolist() == [0.6] * 10 + [0.0] * 30
    page = make_page([log], CollapseMonitorHook)
    assert 'a: 15 % of its steps were skipped' in page
    lines = [train_line(i, skipped=0.0) for i in range(10, 401, 10)]
    log = run(tmp_path / 'b', None, lines)
    assert 'were skipped' not in make_page([log], CollapseMonitorHook)


def test_graphics_cards_of_a_machine(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), healthy_lines())
    path = log.parent / '20260101_000000.log'
    text = path.read_text()
    text = text.replace('GPU 0:', 'GPU 0,1,3: A Card\n    GPU 2:')
    path.write_text(text.replace('GPU 2: A', 'GPU 2: Another'))
    found = machine(read_log(tmp_path))
    assert [*found][:2] == ['GPU 0,1,3', 'GPU 2']
    assert found['GPU 0,1,3'] == 'A Card'
    assert found['GPU 2'] == 'Another Card'
    assert found['GPU number'] == '4'


def test_default_band(tmp_path):
    log = run(tmp_path, scfs_cfg(default_hooks={}), healthy_lines())
    lower = by_title(health_charts(plotter(log)))['Teacher entropy'].edges[-1]
    tolerance = CollapseMonitorHook().tolerance
    assert lower[1] == pytest.approx(tolerance * math.log(K))


def test_speed_of_all_processes(tmp_path):
    """8 images in each of 4 processes, in half a second."""
    charts = by_title(
        speed_charts(plotter(run(tmp_path, None, healthy_lines())))
    )
    assert set(charts) == {'Time of a step', 'Images a second'}
    (series,) = charts['Images a second'].series
    assert np.all(series.curve.y == 64)
    (series,) = charts['Time of a step'].series
    assert np.all(series.below.y == 0.1)


def test_only_what_is_logged_has_a_chart(tmp_path):
    peer = [dict(loss=7.0, lr=0.1, epoch=1, iter=10, step=10)]
    group = plotter(run(tmp_path, None, peer))
    assert by_title(health_charts(group)) == {}
    assert by_title(score_charts(group)) == {}
    assert list(by_title(loss_charts(group))) == ['Total loss']
    assert list(by_title(schedule_charts(group))) == ['Learning rate']
    lines = [
        train_line(i, weight_decay=decay, memory=2000)
        for i, decay in ((10, 0.04), (20, 0.05))
    ]
    group = plotter(run(tmp_path / 'b', None, lines))
    assert 'Weight decay' in by_title(schedule_charts(group))
    assert 'Memory' in by_title(speed_charts(group))


def test_runs_of_several_lengths_share_the_axis(tmp_path):
    """Epochs of 40 and of 20 iterations; one run has no validation."""
    short = [train_line(i, length=20) for i in range(10, 201, 10)]
    logs = [
        run(tmp_path / 'a', None, healthy_lines()),
        run(tmp_path / 'b', None, short),
    ]
    group = plotter(*logs)
    series = by_title(loss_charts(group))['Total loss'].series
    assert [s.run for s in series] == [0, 1]
    assert [s.curve.x[-1] for s in series] == [10, 10]
    scores = by_title(score_charts(group))
    assert [s.run for s in scores['k-NN accuracy'].series] == [0]
    assert scores['k-NN accuracy, layer3'].series[0].curve.y[0] == 13


def test_table_has_the_ends_and_gaps(tmp_path):
    logs = [
        run(tmp_path / 'a', None, healthy_lines()),
        run(tmp_path / 'b', None, healthy_lines(200)),
    ]
    chart = by_title(score_charts(plotter(*logs)))['k-NN accuracy']
    columns, rows = to_rows(chart)
    assert columns == [0, 1]
    assert rows[0] == ('1', ['23', '23'])
    assert rows[-1] == ('10', ['50', '–'])
    chart = by_title(loss_charts(plotter(*logs)))['Total loss']
    _, rows = to_rows(chart, most=5)
    assert [row[0] for row in rows] == [
        *('0.25', '1.5', '2.75', '3.75', '5', '5.25', '7.5', '10'),
    ]


def test_no_two_runs_look_alike():
    styles = [style_of(number, 20) for number in range(20)]
    pairs = {(style['color'], style['linestyle']) for style in styles}
    assert len(pairs) == 20


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0, '0'), (0.0025, '0.0025'), (12000, '12k'), (1.234e-7, '1.2e-07')],
)
def test_short_numbers(value, text):
    assert shorten(value) == text


def test_a_constant_and_a_single_value_can_be_drawn(tmp_path):
    log = run(tmp_path, None, [train_line(10)])
    for chart in loss_charts(plotter(log)) + schedule_charts(plotter(log)):
        assert chart is None or '<use' in draw_chart(chart, 'k', 1)


def test_a_single_place_has_whole_ticks(tmp_path):
    """One line, in the middle of the first epoch, and one validation."""
    log = run(tmp_path, None, [train_line(20), val_line(1, 30)])
    for chart in (loss_charts(plotter(log))[0], score_charts(plotter(log))[0]):
        ticks = re.findall(
            r'<text[^>]*>([^<]+)</text>', draw_chart(chart, 'k', 1)
        )
        assert {'0', '1'} <= {*ticks}
        assert '0.95' not in ticks
        assert '0.975' not in ticks


def test_positions_beyond_a_hundred_thousand_are_whole(tmp_path):
    cfg = detector_cfg()
    cfg['train_cfg']['max_iters'] = 180000
    lines = [dict(loss=1.0, iter=i, step=i) for i in range(1000, 180001, 1000)]
    log = run(tmp_path, cfg, lines)
    rows = [row[0] for row in to_rows(plotter(log).plot('loss'))[1]]
    assert (rows[0], rows[-1]) == ('1000', '180000')
    assert all(re.fullmatch(r'\d+', row) for row in rows)


def test_the_loss_of_a_detector_has_no_teacher(tmp_path):
    log = run(tmp_path / 'a', detector_cfg(), detector_lines())
    assert 'teacher' not in loss_charts(plotter(log))[0].caption
    log = run(tmp_path / 'b', None, healthy_lines(100))
    assert 'teacher' in loss_charts(plotter(log))[0].caption


HOSTILE = {
    'model': dict(model=[1]),
    'train_cfg': dict(train_cfg=[1]),
    'loader': dict(train_dataloader=[1]),
    'parts': dict(model=dict(type='SCFS', head=[1], neck=[2])),
    'hooks': dict(default_hooks=[1]),
    'interval': dict(default_hooks=dict(logger=dict(interval=None))),
    'word': dict(default_hooks=dict(logger=dict(interval='x'))),
    'endless': dict(train_cfg=dict(max_epochs=10**400)),
    'negative': dict(train_cfg=dict(max_epochs=-1)),
    'wrapper': dict(optim_wrapper=[1], param_scheduler='x', auto_scale_lr=7),
    'load_from': dict(
        load_from=3,
        model=dict(type='ImageClassifier', backbone=dict(type='ResNet')),
    ),
    'backbone': dict(model=dict(type='ImageClassifier', backbone='x')),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_settings_of_the_wrong_kind_end_no_report(tmp_path, name):
    log = run(tmp_path, scfs_cfg(**HOSTILE[name]), healthy_lines(100))
    assert 'Total loss' in make_page([log], CollapseMonitorHook)


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('5', 'has 2 damaged lines'),
        ('null', 'has 2 damaged lines'),
        ('{"pascal_voc/mAP": null, "step": 3}', 'has no AP'),
        ('{"pascal_voc/mAP": "x"}', 'has no AP'),
    ],
)
def test_a_detector_s_lines_of_another_kind(tmp_path, line, words):
    log = write_start(tmp_path, detector_cfg(), detector_lines())
    with open(log / 'scalars.json', 'a') as file:
        file.write(f'{line}\n{line}\n')
    assert words in detections(read_log(tmp_path), 'mine')[-1]


def test_drawing_has_the_colours_of_the_page_alone(tmp_path):
    log = run(tmp_path, None, healthy_lines())
    chart = by_title(health_charts(plotter(log)))['Teacher entropy']
    svg = draw_chart(chart, 'mine', 1)
    assert not re.search('#[0-9a-f]{6}|<style|<metadata|font-family', svg)
    assert set(re.findall(r' id="([^"-]*)-', svg)) == {'mine'}
    assert svg == draw_chart(chart, 'mine', 1)


def test_settings(tmp_path):
    cfg = scfs_cfg(randomness=dict(seed=7))
    cfg['default_hooks'] |= dict(
        teacher_temp=dict(type='TeacherTemperatureHook', start=0.04, end=0.07),
        teacher=dict(type='MomentumTeacherHook', momentum=0.99),
    )
    found = describe(run(tmp_path, cfg))
    assert found['Method'] == 'SCFS'
    assert found['Backbone'] == 'ResNet-18'
    assert found['Data'] == 'scenes'
    assert found['Images in a step'] == '32'
    assert found['Length'] == '10 epochs'
    assert found['Local crops'] == '8 of 96 px, 0.05 to 0.25 of the area'
    assert found['Teacher temperature'] == '0.04 to 0.07'
    assert found['Teacher momentum at first'] == '0.99'
    assert found['Prototypes'] == str(K)
    assert found['Seed'] == '7'
    assert 'Precision' not in found


def test_what_differs(tmp_path):
    one, two = scfs_cfg(work_dir='a'), scfs_cfg(work_dir='b', extra='x' * 500)
    two['optim_wrapper']['optimizer']['lr'] = 0.2
    logs = [run(tmp_path / 'a', one), run(tmp_path / 'b', two)]
    rows, more = differences(logs)
    assert rows[0] == ['optim_wrapper.optimizer.lr', '0.1', '0.2']
    assert rows[1][:2] == ['extra', '–']
    assert len(rows[1][2]) == 160
    assert (len(rows), more) == (2, 0)


def test_scores_in_words(tmp_path):
    log = run(tmp_path / 'a', None, healthy_lines(200))
    assert last_score(log) == 'k-NN accuracy 35 % (k = 10) at epoch 5'
    log = run(tmp_path / 'b', detector_cfg(), detector_lines())
    assert last_score(log) == 'Box AP 50 % at iteration 100'
    row = detections(log, 'b')
    assert row == ['b', 'random', '50.0', '75.0', *'––––', '']
    assert last_score(run(tmp_path / 'c')) is None


def test_a_damaged_result_is_noted(tmp_path):
    log = run(tmp_path)
    notes = []
    assert results(log, 'mine', notes) == []
    assert notes == []
    path = tmp_path / 'epoch_1.knn.json'
    path.write_text('{"format": "mmscfs-result-1", "protocol": 3}')
    assert results(log, 'mine', notes) == []
    assert notes[0].startswith(f'mine: result {str(path)!r}: entries missing')
    good = make_result('svm', {'svm/mAP': 55.0})
    write_result(tmp_path / 'epoch_1.svm.json', good)
    (tmp_path / 'other.json').write_text('{"images": [')
    ((_, facts, _),) = results(log, 'mine', notes := [])
    assert facts[-1] == 'mAP of the classifiers 55.00 %'
    assert len(notes) == 1


def test_an_evaluation_in_the_run_s_folder_is_told_once(tmp_path):
    """Its test writes the scores, too, without all that they are of."""
    log = write_start(tmp_path, scfs_cfg(), [])
    test = {'knn/top1': 61.25, 'knn/k': None, 'time': 0.5}
    path = log.parent / '20260101_000000.json'
    path.write_text(json.dumps(test))
    metrics = {'knn/top1': 61.25, 'knn/k': None}
    write_result(tmp_path / 'epoch_1.knn.json', make_result('knn', metrics))
    ((_, facts, _),) = results(read_log(tmp_path), 'mine', [])
    assert facts[0] == 'knn'
    path.write_text(json.dumps(test | {'knn/top1': 61.5}))
    assert len(results(read_log(tmp_path), 'mine', [])) == 2


def test_an_unreadable_result_is_noted(tmp_path, monkeypatch):
    log = run(tmp_path)
    (tmp_path / 'a.json').write_text('{"format": "mmscfs-result-1"}')

    def refuse(paths):
        raise PermissionError(13, 'Permission denied', str(*paths))

    monkeypatch.setattr(
        'mmscfs.visualization.report.facts.find_results', refuse
    )
    notes = []
    assert results(log, 'mine', notes) == []
    assert 'Permission denied' in notes[0]
    assert 'a.json' in notes[0]


def test_a_test_has_its_scores(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), [])
    text = json.dumps({'knn/top1': 61.234, 'knn/k': 20, 'time': 0.5})
    (log.parent / '20260101_000000.json').write_text(text)
    found = read_log(tmp_path)
    assert found.state(found.written) == 'tested'
    (score,) = results(found, 'mine', [])
    assert score.facts == ['test', 'scenes', '–', '–', 'k-NN accuracy 61.23 %']
    assert score.metrics == ['knn/top1 61.23', 'knn/k 20.00']


def test_pictures_of_a_resumed_run(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), healthy_lines(80))
    for step in (0, 40, 80):
        write_picture(log, 'views', step)
    again = write_start(tmp_path, scfs_cfg(), [], '20260102_000000')
    later = write_picture(again, 'views', 80)
    (again / 'vis_image/strange.png').write_text('x')
    Image.new('RGB', (9, 9)).save(tmp_path / 'detections.png')
    found = find_pictures(read_log(tmp_path))
    assert [p.step for p in found['views']] == [0, 40, 80]
    assert found['views'][-1].path == later
    assert [p.step for p in found['detections']] == [None]
    assert set(found) == {'views', 'detections'}


def test_pictures_are_made_small_and_some_left_out(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), healthy_lines(80))
    for step in range(9):
        write_picture(log, 'views', step, size=(2000, 1000))
    run_log = read_log(tmp_path)
    pictures = find_pictures(run_log)['views']
    assert [p.step for p in choose(pictures, 3)] == [0, 4, 8]
    assert choose(pictures, 9) == pictures
    shown = show(pictures[0], run_log)
    assert (shown.width, shown.height) == (1120, 560)
    data = base64.b64decode(shown.data.split(',')[1])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (1120, 560)
        assert image.getpixel((5, 5))[0] > 240
    whole = pictures[1].path.read_bytes()
    pictures[1].path.write_bytes(whole[: len(whole) // 2])
    assert show(pictures[1], run_log).data == ''


def test_time_left(tmp_path):
    """200 of 400 iterations of half a second are to come."""
    log = run(tmp_path, None, healthy_lines(200))
    assert describe_state(log, log.written) == 'running, about 100 s left'
    assert describe_state(log, log.written + 7300) == (
        'stopped, silent for 2 h'
    )


def test_names(tmp_path):
    logs = [run(tmp_path / name) for name in ('a/x', 'b/x', 'y')]
    assert name_runs(logs) == [
        str(tmp_path / 'a/x'),
        str(tmp_path / 'b/x'),
        'y',
    ]


def test_a_run_that_has_only_begun(tmp_path):
    log = run(tmp_path)
    page = make_page([log], CollapseMonitorHook, now=log.written)
    for words in (
        'Running, nothing is logged yet',
        'nothing is logged of its training yet',
        'Nothing of this is logged yet.',
        'There are no pictures yet.',
        'No evaluation has written a result here yet.',
    ):
        assert words in page


def test_damage_is_told(tmp_path):
    line = dict(loss=1.0, iter=10, epoch=1, step=10)
    log = run(tmp_path, None, [line], rest='{"a\n{}\n{"b')
    page = make_page([log], CollapseMonitorHook)
    assert '1 damaged lines of 20260101_000000/vis_data' in page


def test_long_runs_stay_small(tmp_path):
    """A curve has a few hundred points, of however many lines."""
    lines = [
        dict(loss=i % 7, iter=10 * i, epoch=-(-i // 4), step=10 * i)
        for i in range(1, 3001)
    ]
    log = run(tmp_path, scfs_cfg(train_cfg=dict(max_epochs=750)), lines)
    page = make_page([log], CollapseMonitorHook)
    assert page.count('<figure class="chart"') == 1
    assert len(page) < 100000
    assert 'Points are means of up to 13 logged values' in page


def test_crops_are_those_of_the_loader_and_the_rate_says_of_what(tmp_path):
    """A config's variables hold other crops, which were changed later."""
    cfg = dict(
        multi_crop=dict(type='MultiCrop', num_local=2, local_size=32),
        **scfs_cfg(auto_scale_lr=dict(base_batch_size=256, enable=True)),
    )
    found = describe(run(tmp_path, cfg, healthy_lines()))
    assert found['Local crops'].startswith('8 of 96 px')
    assert found['Learning rate'] == (
        '0.1 for 256 images, scaled to those in a step'
    )
