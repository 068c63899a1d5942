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
WORSE = dict(loss_dino=TOP + 1)
NOT_FINITE = dict(loss_dino=math.nan)
LOW = dict(teacher_entropy=0.1 * TOP)
SCORES = [val_line(1, 30.0), val_line(2, 41.0), val_line(3, 29.5)]
RECALL = [{'view_recall/top1': r, 'step': i} for i, r in enumerate((0.2, 5.0))]


def lines(last, bad=None, since=0, until=math.inf):
    """The monitor looks at 150, and then at every 50th iteration."""
    return [
        train_line(i, **(bad if bad and since < i <= until else {}))
        for i in range(10, last + 1, 10)
    ]


def head(**settings):
    return dict(model=scfs_cfg()['model'] | dict(head=settings))


def monitor(**settings):
    return dict(default_hooks=dict(x=settings))


# A wide tolerance finds what the default of 0.005 does not.
WIDE = monitor(
    type='mmpretrain.CollapseMonitorHook', begin=0, window=50, tolerance=0.2
)
REFUSED = monitor(type='CollapseMonitorHook', tolerance='x')


@pytest.mark.parametrize(
    ('logged', 'changes', 'word', 'reason'),
    [
        # The mean over 360 to 400 of TOP - 2 - i / 400.
        (lines(400), {}, 'no collapse', f'entropy {TOP - 2.95:.3g} of at'),
        (lines(400, ONE_PROTOTYPE, 200), {}, 'collapsed', 'same prototype'),
        (lines(400, ALL_ALIKE, 200), {}, 'collapsed', 'all prototypes equal'),
        (lines(400, NOTHING_LEARNT, 200), {}, 'collapsed', 'no views apart'),
        (lines(140, NOTHING_LEARNT), {}, 'too early', 'iteration 150 on'),
        (
            lines(400, ONE_PROTOTYPE, 200, 250),
            {},
            'no collapse',
            'recovered from signs of collapse at iteration 250; quality was',
        ),
        (lines(400, WORSE), {}, 'not learning yet', 'that of a guess'),
        (lines(400) + SCORES[:2], {}, 'learning', 'k-NN accuracy has risen'),
        (lines(400) + RECALL, {}, 'learning', 'recall has risen: 0.2 % at'),
        (lines(400) + SCORES + RECALL, {}, 'in doubt', '30 % at first, 29.5'),
        # The loss is taken without its weight.
        (
            lines(400, dict(loss_dino=2 * TOP, teacher_entropy=4.0)),
            head(loss_weight=2.0),
            'collapsed',
            '',
        ),
        (
            lines(400, dict(loss_dino=TOP, teacher_entropy=2.0)),
            head(loss_weight=2.0),
            'no collapse',
            '',
        ),
        (lines(400, LOW), {}, 'no collapse', ''),
        (lines(400, LOW), WIDE, 'collapsed', ''),
        (
            [*lines(100), train_line(110, loss=math.nan)],
            {},
            'diverged',
            'at iteration 110',
        ),
        (lines(400, NOT_FINITE, 350), {}, 'diverged', 'to iteration 400'),
        ([], {}, 'not judged', 'not logged a training step'),
        (
            [dict(loss=1.0, iter=10, epoch=1, step=10)],
            {},
            'not judged',
            'teacher_entropy',
        ),
        (lines(400), REFUSED, 'not judged', 'that CollapseMonitorHook refuse'),
        (lines(400, dict(teacher_entropy=math.nan)), {}, 'not judged', ''),
        (lines(400), head(loss_weight=0), 'not judged', 'loss_weight is 0'),
        (lines(400), dict(model=dict(type='X')), 'not judged', 'prototypes'),
        (detector_lines(), detector_cfg(), 'not judged', 'Only pre-training'),
    ],
)
def test_verdicts(tmp_path, logged, changes, word, reason):
    write_start(tmp_path, scfs_cfg(**changes), logged)
    found = judge(read_log(tmp_path))
    assert found.word == word
    assert reason in found.reason


def test_criteria_are_those_of_the_run_or_the_defaults(tmp_path):
    write_start(tmp_path / 'a', scfs_cfg(default_hooks={}), [])
    assert criteria_of(read_log(tmp_path / 'a')) == CollapseCriteria()
    hooks = [dict(type='CollapseMonitorHook', begin=7, stop=True)]
    cfg = scfs_cfg(default_hooks={}, custom_hooks=hooks)
    write_start(tmp_path / 'b', cfg, [])
    assert criteria_of(read_log(tmp_path / 'b')) == CollapseCriteria(begin=7)


@pytest.mark.parametrize('bad', [ALL_ALIKE, NOTHING_LEARNT, {}])
def test_a_line_of_a_skipped_step_changes_no_verdict(tmp_path, bad):
    """One that is not finite, among those of the last window."""
    found = lines(400, bad)
    words = set()
    for name in 'ab':
        write_start(tmp_path / name, scfs_cfg(), found)
        verdict = judge(read_log(tmp_path / name))
        assert 'nan' not in verdict.reason
        words.add(verdict.word)
        found[-3] |= NOT_FINITE
    assert len(words) == 1
