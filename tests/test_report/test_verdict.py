# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Verdicts, by the limits of the collapse monitor."""

import math

import pytest
from report_runs import (
    K,
    detector_cfg,
    detector_lines,
    scfs_cfg,
    train_line,
    val_line,
    write_start,
)

from mmscfs.evaluation import CollapseCriteria
from mmscfs.report import judge
from mmscfs.report.verdict import criteria_of
from mmscfs.results import read_log

TOP = math.log(K)
ONE_PROTOTYPE = dict(teacher_entropy=0.01)
ALL_ALIKE = dict(teacher_entropy=TOP - 0.01)
NOTHING_LEARNT = dict(loss_dino=TOP + 0.01, teacher_entropy=4.0)


def verdict(folder, lines, **changes):
    write_start(folder, scfs_cfg(**changes), lines)
    return judge(read_log(folder))


def lines(last, bad=None, since=0, until=math.inf):
    """The monitor looks at 150, and then at every 50th iteration."""
    return [
        train_line(i, **(bad if bad and since < i <= until else {}))
        for i in range(10, last + 1, 10)
    ]


def test_healthy(tmp_path):
    found = verdict(tmp_path, lines(400))
    assert found.word == 'learning'
    # The mean over 360 to 400 of TOP - 2 - i / 400.
    assert f'entropy {TOP - 2 - 380 / 400:.3g} of at most' in found.reason


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (ONE_PROTOTYPE, 'same prototype'),
        (ALL_ALIKE, 'all prototypes equally likely'),
        (NOTHING_LEARNT, 'tells no views apart'),
    ],
)
def test_collapsed(tmp_path, bad, words):
    found = verdict(tmp_path, lines(400, bad, since=200))
    assert found.word == 'collapsed'
    assert words in found.reason


def test_a_young_run_is_not_judged_harshly(tmp_path):
    found = verdict(tmp_path / 'a', lines(140, NOTHING_LEARNT))
    assert found.word == 'too early'
    assert 'from iteration 150 on' in found.reason
    found = verdict(tmp_path / 'b', lines(150, NOTHING_LEARNT))
    assert found.word == 'collapsed'


def test_recovered(tmp_path):
    found = verdict(tmp_path, lines(400, ONE_PROTOTYPE, 200, 250))
    assert found.word == 'learning'
    assert 'recovered from signs of collapse at iteration 250' in found.reason


def test_worse_than_a_guess(tmp_path):
    bad = dict(loss_dino=TOP + 1)
    found = verdict(tmp_path / 'a', lines(400, bad))
    assert found.word == 'not learning yet'
    assert verdict(tmp_path / 'b', lines(100, bad)).word == 'too early'


def test_scores_that_do_not_rise(tmp_path):
    found = verdict(tmp_path / 'a', [*lines(400), val_line(1, 30.0)])
    assert found.word == 'learning'
    scores = [val_line(1, 30.0), val_line(2, 41.0), val_line(3, 29.5)]
    found = verdict(tmp_path / 'b', [*lines(400), *scores])
    assert found.word == 'in doubt'
    assert '30 % at first, 29.5 % now' in found.reason
    found = verdict(tmp_path / 'c', [*lines(400), *scores[:2]])
    assert found.word == 'learning'


def test_the_loss_is_taken_without_its_weight(tmp_path):
    model = scfs_cfg()['model'] | dict(head=dict(loss_weight=2.0))
    bad = dict(loss_dino=2 * TOP, teacher_entropy=4.0)
    found = verdict(tmp_path / 'a', lines(400, bad), model=model)
    assert found.word == 'collapsed'
    bad = dict(loss_dino=TOP, teacher_entropy=2.0)
    found = verdict(tmp_path / 'b', lines(400, bad), model=model)
    assert found.word == 'learning'


def test_settings_of_the_run_and_defaults(tmp_path):
    """A wide tolerance finds what the default of 0.005 does not."""
    bad = dict(teacher_entropy=0.1 * TOP)
    assert verdict(tmp_path / 'a', lines(400, bad)).word == 'learning'
    wide = dict(begin=0, window=50, tolerance=0.2)
    hooks = dict(x=dict(wide, type='mmpretrain.CollapseMonitorHook'))
    found = verdict(tmp_path / 'b', lines(400, bad), default_hooks=hooks)
    assert found.word == 'collapsed'
    write_start(tmp_path / 'c', scfs_cfg(default_hooks={}), [])
    assert criteria_of(read_log(tmp_path / 'c')) == CollapseCriteria()
    hooks = [dict(type='CollapseMonitorHook', begin=7, stop=True)]
    cfg = scfs_cfg(default_hooks={}, custom_hooks=hooks)
    write_start(tmp_path / 'd', cfg, [])
    assert criteria_of(read_log(tmp_path / 'd')) == CollapseCriteria(begin=7)


def test_what_cannot_be_judged(tmp_path):
    assert verdict(tmp_path / 'a', []).word == 'not judged'
    peer = [dict(loss=1.0, iter=10, epoch=1, step=10)]
    assert verdict(tmp_path / 'b', peer).word == 'not judged'
    bad = dict(type='CollapseMonitorHook', tolerance='x')
    found = verdict(tmp_path / 'c', lines(400), default_hooks=dict(x=bad))
    assert 'settings that CollapseMonitorHook' in found.reason
    write_start(tmp_path / 'd', detector_cfg(), detector_lines())
    assert judge(read_log(tmp_path / 'd')).word == 'not judged'


def test_diverged(tmp_path):
    bad = lines(100) + [train_line(110, loss=math.nan)]
    assert verdict(tmp_path, bad).word == 'diverged'


@pytest.mark.parametrize('bad', [ALL_ALIKE, NOTHING_LEARNT, {}])
def test_a_line_of_a_skipped_step_changes_no_verdict(tmp_path, bad):
    """One that is not finite, among those of the last window."""
    found = lines(400, bad)
    before = verdict(tmp_path / 'a', found)
    found[-3] |= dict(loss_dino=math.nan)
    after = verdict(tmp_path / 'b', found)
    assert after.word == before.word
    assert 'nan' not in after.reason


def test_a_window_without_finite_figures(tmp_path):
    bad = dict(loss_dino=math.nan)
    found = verdict(tmp_path / 'a', lines(400, bad, since=350))
    assert found.word == 'diverged'
    assert 'up to iteration 400' in found.reason
    bad = dict(teacher_entropy=math.nan)
    assert verdict(tmp_path / 'b', lines(400, bad)).word == 'not judged'
    model = scfs_cfg()['model'] | dict(head=dict(loss_weight=0))
    found = verdict(tmp_path / 'c', lines(400), model=model)
    assert found.word == 'not judged'
    assert 'loss_weight is 0' in found.reason
