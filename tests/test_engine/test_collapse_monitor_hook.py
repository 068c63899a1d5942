# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from mmengine.logging import MessageHub
from toy_runs import in_processes

from mmscfs.engine.hooks import CollapseMonitorHook

K = 65536
TOP = 11.0903548889591  # ln K
HEALTHY = dict(teacher_entropy=4.0, loss=7.0)
ONE_PROTOTYPE = dict(teacher_entropy=0.01, loss=0.3)
ALL_ALIKE = dict(teacher_entropy=TOP - 0.01, loss=TOP)
NOTHING_LEFT = dict(teacher_entropy=10.5, loss=10.6)
NOTHING_LEARNT = dict(teacher_entropy=4.0, loss=TOP)


def run(hook, figures, loss_weight=1.0):
    """Return the iterations, from 1, with a warning, and the warnings.

    Logs the figures of each iteration as mmengine does, then calls the hook.
    """
    warnings = []
    runner = SimpleNamespace(
        iter=0,
        hooks=[],
        message_hub=MessageHub('test_collapse_monitor'),
        logger=SimpleNamespace(warning=warnings.append),
        model=SimpleNamespace(
            head=SimpleNamespace(num_prototypes=K, loss_weight=loss_weight)
        ),
    )
    when = []
    for runner.iter, values in enumerate(figures):
        runner.message_hub.update_scalar(
            'train/teacher_entropy', values['teacher_entropy']
        )
        runner.message_hub.update_scalar(
            'train/loss_dino', loss_weight * values['loss']
        )
        before = len(warnings)
        hook.after_train_iter(runner, runner.iter)
        when += [runner.iter + 1] * (len(warnings) - before)
    return when, warnings


@pytest.mark.parametrize(
    ('figures', 'begin', 'window', 'first'),
    [
        (ONE_PROTOTYPE, 10, 5, 15),
        (ALL_ALIKE, 12, 5, 20),
        (NOTHING_LEARNT, 0, 1, 1),
    ],
)
def test_warns_once_and_not_too_early(figures, begin, window, first):
    hook = CollapseMonitorHook(begin=begin, window=window)
    when, (warning,) = run(hook, [figures] * 60)
    assert when == [first]
    assert f'collapsed by iteration {first}:' in warning
    finding = hook.criteria.diagnose(**figures, num_prototypes=K)
    assert finding[:30] in warning


def test_may_stop_the_run_after_the_warning(monkeypatch):
    hook = CollapseMonitorHook(begin=10, window=5, stop=True)
    assert run(hook, [HEALTHY] * 20) == ([], [])
    monkeypatch.setattr(
        MessageHub, 'runtime_info', dict(last_ckpt='epoch_2.pth')
    )
    with pytest.raises(RuntimeError) as error:
        run(hook, [HEALTHY] * 18 + [ONE_PROTOTYPE] * 40)
    text = str(error.value)
    assert 'stopped at iteration 25, ' in text
    assert 'the teacher gives every image the same prototype' in text
    assert 'Last checkpoint: epoch_2.pth' in text
    assert 'collapse_monitor.stop=False' in text


def is_stopped(figures):
    """Whether this process of two was stopped by its figures."""
    hook = CollapseMonitorHook(begin=10, window=5, stop=True)
    try:
        run(hook, [figures[dist.get_rank()]] * 20)
    except RuntimeError as error:
        return 'stopped at iteration 15' in str(error)
    return False


@pytest.mark.parametrize(
    ('figures', 'stops'),
    [
        ((HEALTHY, ONE_PROTOTYPE), False),
        # Divergences of 0.3, which is healthy, and 0.1: 0.2 is not.
        ((dict(teacher_entropy=10.0, loss=10.3), NOTHING_LEFT), True),
    ],
)
def test_processes_stop_together(figures, stops, tmp_path):
    """One alone would leave the others waiting for it."""
    assert in_processes(is_stopped, 2, tmp_path, figures) == [stops, stops]


# From iteration 23 on: the first window with nothing else is 26-30.
LATE = [HEALTHY] * 22 + [ONE_PROTOTYPE] * 20


@pytest.mark.parametrize(
    ('figures', 'loss_weight', 'expected'),
    [
        ([HEALTHY] * 60, 1.0, []),
        # What was before the window does not count.
        ([NOTHING_LEARNT] * 10 + [HEALTHY] * 20, 1.0, []),
        (LATE, 1.0, [30]),
        # The loss's weight is taken out; without one it is not trained.
        ([NOTHING_LEARNT] * 20, 0.5, [15]),
        ([NOTHING_LEARNT] * 20, 2.0, [15]),
        ([NOTHING_LEARNT] * 20, 0.0, []),
    ],
)
def test_when_it_warns(figures, loss_weight, expected):
    hook = CollapseMonitorHook(begin=10, window=5)
    assert run(hook, figures, loss_weight)[0] == expected


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match='window=0'):
        CollapseMonitorHook(window=0)
    with pytest.raises(TypeError, match='windows'):
        CollapseMonitorHook(windows=5)
