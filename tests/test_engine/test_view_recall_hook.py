# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner
from toy_runs import teacher_outputs

from mmscfs.engine.hooks import ViewRecallHook


@pytest.fixture
def tiny_run(tiny_run):
    """Measured every other epoch."""
    hook = dict(type='ViewRecallHook', interval=2)
    tiny_run.default_hooks.view_recall = hook
    return tiny_run


def recall_by_hand(runner, images, k):
    """Rank by NumPy what the teacher makes of two views of each image."""
    maps = teacher_outputs(runner, images, 2)[-1].double().numpy()
    pooled = maps.mean((2, 3))
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    features = [pooled[::2], pooled[1::2]]
    hits = 0
    for queries, keys in (features, features[::-1]):
        for i, query in enumerate(queries):
            cosines = keys @ query
            hits += sum(cosines >= cosines[i] - 1e-6) <= k
    return 100 * hits / (2 * images)


def logged(runner):
    lines = (
        Path(
            runner.visualizer.get_backend(
                'SafeLocalVisBackend'
            )._scalar_save_file
        )
        .read_text()
        .splitlines()
    )
    lines = map(json.loads, lines)
    return [line for line in lines if 'view_recall/top1' in line]


def test_recall_is_that_of_the_teacher_before_and_after(tiny_run):
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    first, last = logged(runner)
    assert (first['step'], last['step']) == (0, 2)
    for k in (1, 5):
        expected = recall_by_hand(runner, 16, k)
        assert last[f'view_recall/top{k}'] == pytest.approx(expected)
        assert first[f'view_recall/top{k}'] > 0


def test_bad_images_are_left_out_and_too_few_are_not_ranked(
    tiny_run, image_folder
):
    for i, path in enumerate(sorted(image_folder.rglob('*.jpg'))):
        if i < 12:
            path.write_bytes(path.read_bytes()[:50])
    tiny_run.train_dataloader.dataset.update(on_error='skip', max_errors=1)
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    assert not logged(runner)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(interval=0), 'interval=0 must be a whole number >= 1'),
        (dict(iter_interval=1.5), 'iter_interval=1.5 must be'),
        (dict(num_images=4), 'num_images=4 must be a whole number >= 5'),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=f'ViewRecallHook: {message}'):
        ViewRecallHook(**settings)
