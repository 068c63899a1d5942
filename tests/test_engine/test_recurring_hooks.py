# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Hooks that look at training images now and then: figures and recall.

test_pictures_hook.py has more of the pictures.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from toy_runs import teacher_outputs

from mmscfs.engine.hooks.representation_hook import patches_of
from mmscfs.engine.resume import SafeCheckpointHook
from mmscfs.evaluation import alpha_req, dse_terms, lidar, rankme
from mmscfs.results import read_scalars


@pytest.fixture
def tiny_run(tiny_run):
    """Measured every epoch, by three views of sixteen images."""
    tiny_run.default_hooks.representation = dict(
        type='RepresentationHook', interval=1, num_images=20, num_views=3
    )
    return tiny_run


def train(cfg, **changes):
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def logged(runner, name='representation/rankme_layer4'):
    """What the hook that logs a figure has logged, by step."""
    files = sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
    lines = [line for file in files for line in read_scalars(file)[0]]
    return {int(line.pop('step')): line for line in lines if name in line}


def figures_by_hand(runner):
    """The figures of three views of sixteen images, by the log's names."""
    found = {}
    for i, maps in enumerate(teacher_outputs(runner, 16, 3), 2):
        pooled = maps.double().mean((2, 3))
        found[f'rankme_layer{i}'] = rankme(pooled)
        found[f'alpha_layer{i}'] = alpha_req(pooled)
        found[f'lidar_layer{i}'] = lidar(pooled.view(16, 3, -1))
        if i == 2:  # the others are smaller than 3 x 3
            patches = F.normalize(maps[::3].flatten(2).mT, dim=-1)
            terms = dse_terms(patches)
            found['dse_layer2'] = terms.dse
            for name, value in terms._asdict().items():
                found[f'dse_{name}_layer2'] = value
    return {f'representation/{name}': v for name, v in found.items()}


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


@pytest.mark.usefixtures('draws')
def test_what_is_seen_is_the_teachers_and_changes_nothing(tiny_run, tmp_path):
    """The training is as without the hooks to the bit, random states too."""
    tiny_run.default_hooks.update(
        view_recall=dict(type='ViewRecallHook', interval=2),
        pictures=dict(type='PicturesHook', interval=2),
    )
    seen = train(tiny_run, work_dir=str(tmp_path / 'seen'))
    for name in ('representation', 'view_recall', 'pictures'):
        del tiny_run.default_hooks[name]
    train(tiny_run, work_dir=str(tmp_path / 'plain'))
    one, other = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)
        for name in ('seen', 'plain')
    )
    for name, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    one, other = (
        state['message_hub']['runtime_info']['random_states'][0]
        for state in (one, other)
    )
    assert torch.equal(one['torch'], other['torch'])
    assert one['python'] == other['python']
    keys = (part['numpy']['state']['key'] for part in (one, other))
    assert torch.equal(*keys)

    figures = logged(seen)
    assert [*figures] == [0, 1, 2]
    expected = figures_by_hand(seen)
    assert figures[2] == pytest.approx(expected, rel=1e-3)
    assert figures[0] != pytest.approx(expected, rel=1e-3)
    recall = logged(seen, 'view_recall/top1')
    assert [*recall] == [0, 2]
    for k in (1, 5):
        expected = recall_by_hand(seen, 16, k)
        assert recall[2][f'view_recall/top{k}'] == pytest.approx(expected)
        assert recall[0][f'view_recall/top{k}'] > 0
    # Before the run, after the first epoch and after the last, of 4 batches.
    folder = Path(seen.log_dir, 'vis_data', 'vis_image')
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f'{name}_{step}.png'
        for name in ('views', 'search_maps')
        for step in (0, 4, 8)
    )
    first, last = (
        cv2.imread(str(folder / f'search_maps_{step}.png')) for step in (0, 8)
    )
    assert first.shape == last.shape
    assert not np.array_equal(first, last)


def test_bad_images_are_left_out_and_too_few_are_not_ranked(
    tiny_run, image_folder
):
    tiny_run.default_hooks.representation = dict(type='ViewRecallHook')
    for path in sorted(image_folder.rglob('*.jpg'))[:12]:
        path.write_bytes(path.read_bytes()[:50])
    tiny_run.train_dataloader.dataset.update(on_error='skip', max_errors=1)
    assert not logged(train(tiny_run), 'view_recall/top1')


def test_save_best_keeps_the_best(tiny_run):
    name = 'representation/rankme_layer4'
    tiny_run.default_hooks.checkpoint.update(save_best=name, rule='less')
    runner = train(tiny_run)
    scores = {step: line[name] for step, line in logged(runner).items()}
    del scores[0]  # the first weights are no candidate
    best = min(scores, key=scores.get)
    folder = Path(runner.work_dir)
    (path,) = folder.glob('best_*.pth')
    assert path.name == f'best_representation_rankme_layer4_epoch_{best}.pth'
    meta = torch.load(path, weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (best, 4 * best)
    # The score of the first epoch was the best until then.
    first = torch.load(folder / 'epoch_1.pth', weights_only=True)
    info = first['message_hub']['runtime_info']
    assert info['best_score'] == pytest.approx(scores[1])


def test_runs_without_epochs_measure_by_iterations(tiny_run):
    for hook in ('teacher_temp', 'frozen_prototypes'):  # they need epochs
        del tiny_run.default_hooks[hook]
    tiny_run.train_cfg = dict(type='IterBasedTrainLoop', max_iters=5)
    tiny_run.default_hooks.representation.iter_interval = 2
    name = 'representation/lidar_layer4'
    tiny_run.default_hooks.checkpoint.update(
        by_epoch=False, save_best=name, rule='greater'
    )
    runner = train(tiny_run)
    scores = {step: line[name] for step, line in logged(runner).items()}
    assert [*scores] == [0, 2, 4, 5]
    del scores[0]
    (path,) = Path(runner.work_dir).glob('best_*.pth')
    best = max(scores, key=scores.get)
    assert path.name.endswith(f'lidar_layer4_iter_{best}.pth')
    meta = torch.load(path, weights_only=True)['meta']
    assert meta['iter'] == best
    assert runner.iter == 5


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'default_hooks.checkpoint.save_best': 'representation/lidar'},
            'representation/lidar is not measured; choose from '
            'representation/rankme_layer2, ',
        ),
        (
            {'train_dataloader.dataset.indices': 7},
            'at least 8 images that can be read, got 7 of 7',
        ),
        (
            {'default_hooks.representation.num_views': 1},
            'at least two views of an image, got 1',
        ),
    ],
)
def test_wrong_runs_are_refused_before_the_first_step(
    tiny_run, changes, message
):
    tiny_run.default_hooks.checkpoint.rule = 'greater'
    with pytest.raises(ValueError, match=message):
        train(tiny_run, **changes)
    assert not [*Path(tiny_run.work_dir).glob('epoch_*.pth')]


def test_best_figures_need_the_hook_and_no_validation(tiny_run):
    best = dict(save_best='representation/lidar_layer4', rule='greater')
    # Scores of a validation are not theirs: it would fail without a runner.
    SafeCheckpointHook(**best).after_val_epoch(None, {'knn/top1': 5.0})
    tiny_run.default_hooks.checkpoint.update(best)
    del tiny_run.default_hooks['representation']
    with pytest.raises(ValueError, match='what RepresentationHook measures'):
        train(tiny_run)


def test_patches_are_spread_over_maps_and_tokens():
    maps = torch.arange(2 * 5 * 14 * 7.0).view(2, 5, 14, 7)
    tokens = maps.view(2, 5, 98).mT
    for output in (maps, tokens):
        assert torch.equal(patches_of(output), tokens[:, ::2])
    few = torch.randn(2, 5, 2, 3)
    assert torch.equal(patches_of(few), few.view(2, 5, 6).mT)
    assert torch.equal(patches_of(few[..., 0, 0]), few[:, None, :, 0, 0])


@pytest.mark.parametrize(
    ('kind', 'settings', 'message'),
    [
        ('ViewRecallHook', dict(interval=0), 'interval=0 must be a whole'),
        ('PicturesHook', dict(iter_interval=1.5), 'iter_interval=1.5 must be'),
        ('ViewRecallHook', dict(num_images=4), 'num_images=4 .* >= 5; to do'),
        ('RepresentationHook', dict(num_images=7), 'num_images=7 .* >= 8'),
    ],
)
def test_settings_are_checked(kind, settings, message):
    with pytest.raises(ValueError, match=f'{kind}: {message}'):
        HOOKS.build(dict(type=kind, **settings))
