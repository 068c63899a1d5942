# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.visualization import LocalVisBackend
from mmpretrain.datasets import ImageNet

from mmscfs.engine import prepare_config
from mmscfs.engine.prepare import LOADER_SECONDS


def schedules(warm_up, cosine):
    return Config(
        dict(
            param_scheduler=[
                dict(type='LinearLR', **warm_up),
                dict(type='CosineAnnealingLR', **cosine),
            ]
        )
    )


def test_a_schedule_that_ends_before_it_begins_is_named():
    cfg = schedules(dict(begin=0, end=10), dict(begin=10, end=2))
    with pytest.raises(ValueError, match=r'param_scheduler\.1\.end=2 is not'):
        prepare_config(cfg)
    with pytest.raises(ValueError, match=r'param_scheduler\.0\.end=0 is not'):
        prepare_config(schedules(dict(end=0), dict(begin=0, end=2)))


def test_schedules_that_run_pass():
    prepare_config(schedules(dict(begin=0, end=1), dict(begin=1)))
    prepare_config(Config(dict(param_scheduler=None)))
    prepare_config(Config(dict(param_scheduler=dict(type='ConstantLR'))))


@pytest.mark.parametrize(
    ('loop', 'hook', 'backend', 'ours'),
    [
        (
            'EpochBasedTrainLoop',
            'CheckpointHook',
            'LocalVisBackend',
            'ResumableEpochLoop',
        ),
        (
            'mmengine.IterBasedTrainLoop',
            'mmengine.CheckpointHook',
            'mmengine.LocalVisBackend',
            'ResumableIterLoop',
        ),
        (
            EpochBasedTrainLoop,
            CheckpointHook,
            LocalVisBackend,
            'ResumableEpochLoop',
        ),
        (
            IterBasedTrainLoop,
            CheckpointHook,
            LocalVisBackend,
            'ResumableIterLoop',
        ),
    ],
)
def test_parts_of_mmengine_are_replaced_however_named(
    loop, hook, backend, ours
):
    cfg = Config(
        dict(
            train_cfg=dict(type=loop, max_epochs=1),
            default_hooks=dict(checkpoint=dict(type=hook, interval=3)),
            visualizer=dict(vis_backends=[dict(type=backend)]),
        )
    )
    prepare_config(cfg)
    assert cfg.train_cfg == dict(type=f'mmpretrain.{ours}', max_epochs=1)
    assert cfg.default_hooks.checkpoint == dict(
        type='mmpretrain.SafeCheckpointHook', interval=3
    )
    (found,) = cfg.visualizer.vis_backends
    assert found.type == 'mmpretrain.SafeLocalVisBackend'


def test_parts_of_others_stay():
    class OwnHook(CheckpointHook):
        pass

    hooks = [dict(type=OwnHook), dict(type='Own'), dict(type=ImageNet)]
    cfg = Config(dict(train_cfg=dict(type='OwnLoop'), custom_hooks=hooks[:]))
    cfg.default_hooks = None
    prepare_config(cfg)
    assert cfg.train_cfg.type == 'OwnLoop'
    assert cfg.custom_hooks[:3] == hooks
    assert 'Safe' in cfg.default_hooks.checkpoint.type  # mmengine's default


def test_every_loader_with_workers_has_a_limit():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=2, timeout=7),
            val_cfg=dict(bank_dataloader=dict(num_workers=1, timeout=0)),
            test_dataloader=dict(num_workers=0, timeout=9),
        )
    )
    prepare_config(cfg)
    assert cfg.train_dataloader.timeout == LOADER_SECONDS >= 300
    assert cfg.val_dataloader.timeout == 7
    assert cfg.val_cfg.bank_dataloader.timeout == 0
    assert 'timeout' not in cfg.test_dataloader
