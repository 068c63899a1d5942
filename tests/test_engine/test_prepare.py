# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop
from mmengine.visualization import LocalVisBackend

from mmscfs.engine import prepare_config
from mmscfs.engine.prepare import LOADER_SECONDS, data_loaders
from mmscfs.engine.view_settings import crops_of

CONFIGS = Path(__file__).parents[2] / 'configs'
OURS = [
    path
    for path in sorted(CONFIGS.rglob('*.py'))
    if path.relative_to(CONFIGS).parts[0] not in ('_base_', 'sweeps')
]


THEIRS = (EpochBasedTrainLoop, CheckpointHook, LocalVisBackend)


@pytest.mark.parametrize(
    ('loop', 'hook', 'backend'),
    [
        THEIRS,
        [f'mmengine.{kind.__name__}' for kind in THEIRS],
        ('mmengine.IterBasedTrainLoop', *THEIRS[1:]),
    ],
)
def test_parts_of_mmengine_are_replaced_however_named(loop, hook, backend):
    unit = 'Iter' if 'Iter' in str(loop) else 'Epoch'
    cfg = Config(
        dict(
            train_cfg=dict(type=loop, max_epochs=1),
            default_hooks=dict(checkpoint=dict(type=hook, interval=3)),
            visualizer=dict(vis_backends=[dict(type=backend)]),
        )
    )
    prepare_config(cfg)
    assert cfg.train_cfg == dict(
        type=f'mmpretrain.Resumable{unit}Loop', max_epochs=1
    )
    assert cfg.default_hooks.checkpoint == dict(
        type='mmpretrain.SafeCheckpointHook', interval=3
    )
    (found,) = cfg.visualizer.vis_backends
    assert found.type == 'mmpretrain.SafeLocalVisBackend'


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    texts = []
    monkeypatch.setattr(
        'mmscfs.engine.prepare.print_log', lambda text, **_: texts.append(text)
    )
    return texts


def test_each_change_is_named_in_one_line(said):
    own = dict(type='OwnHook')
    cfg = Config(dict(train_cfg=dict(max_epochs=9), custom_hooks=[own]))
    prepare_config(cfg)
    (line,) = said
    assert '\n' not in line
    for change in (
        'train_cfg.type=mmpretrain.ResumableEpochLoop',
        'default_hooks.checkpoint.type=mmpretrain.SafeCheckpointHook',
        'visualizer.vis_backends.0.type=mmpretrain.SafeLocalVisBackend',
        'custom_hooks.1.type=mmpretrain.PlainCheckpointHook',
        'custom_hooks.2.type=mmpretrain.PreemptionHook',
    ):
        assert change in line
    assert cfg.custom_hooks[0] == own
    prepared = cfg.to_dict()
    prepare_config(cfg)
    assert cfg.to_dict() == prepared
    assert len(said) == 1


@pytest.mark.parametrize('path', OURS, ids=lambda path: path.stem)
def test_a_config_of_ours_runs_as_it_is_read(path, monkeypatch):
    """On a GPU all that is added is how long a loader is waited for.

    And where the bank of one setting lies: beside the images.
    """
    monkeypatch.setattr('mmscfs.engine.prepare.get_device', lambda: 'cuda')
    cfg = Config.fromfile(path)
    for loader in data_loaders(cfg):
        loader.persistent_workers = loader.num_workers > 0
    before = cfg.to_dict()
    crops = crops_of(cfg)
    assert crops == [cfg.get('multi_crop')] * len(crops)
    prepare_config(cfg)
    for loader in data_loaders(cfg):
        if loader.num_workers:
            assert loader.pop('timeout') == LOADER_SECONDS
    split = dict(folders_knn='test', scfs_r50_boxes='val').get(path.stem)
    if split:
        bank = cfg[f'{split}_cfg'].bank_dataloader.dataset
        root = cfg[f'{split}_dataloader'].dataset.data_root
        assert bank.pop('data_root') == root
    assert cfg.to_dict() == before


# The crops' settings by name

PLACE = 'train_dataloader.dataset.pipeline.1'


def crops_after(options, path=CONFIGS / 'scfs_r50.py'):
    """Return the variable and the pipeline's crops of a prepared config."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    prepare_config(cfg)
    return cfg.multi_crop, cfg.train_dataloader.dataset.pipeline[1]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'multi_crop.num_local': 6}, dict(num_local=6)),
        ({f'{PLACE}.hue': 0}, dict(hue=0)),
        (
            {'multi_crop.num_local': 6, f'{PLACE}.local_size': 64},
            dict(num_local=6, local_size=64),
        ),
        (
            {'multi_crop.num_local': 6, f'{PLACE}.num_local': 6},
            dict(num_local=6),
        ),
    ],
)
def test_crops_are_set_by_name_or_by_place(options, expected):
    plain, same = crops_after({})
    assert plain == same
    assert plain.num_local == 8
    named, crop = crops_after(options)
    assert named == crop == {**plain, **expected}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'multi_crop.num_local': 6, f'{PLACE}.num_local': 4},
            r'multi_crop\.num_local=6 and train_dataloader\.dataset\.'
            r'pipeline: MultiCrop\.num_local=4 were both set',
        ),
        (
            {'multi_crop.num_local': 6, PLACE[:-2]: [dict(type='LoadImage')]},
            'has 0 MultiCrop transforms',
        ),
    ],
)
def test_crops_that_cannot_be_set_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        crops_after(options)


def test_the_pipeline_of_a_file_counts(tmp_path, said):
    child = tmp_path / 'child.py'
    base = f"_base_ = ['{CONFIGS / 'scfs_r50.py'}']\n"
    child.write_text(f'{base}multi_crop = dict(num_local=6)\n')
    named, crop = crops_after({'multi_crop.hue': 0}, child)
    assert (named.num_local, crop.num_local) == (6, 8)
    assert named.hue == crop.hue == 0
    (line,) = said
    assert "multi_crop={'num_local': 6}, which the config file" in line
    child.write_text(
        f'{base}multi_crop = dict(_base_.multi_crop, num_local=6)\n'
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImage')"
        ", multi_crop, dict(type='PackInputs')]))\n"
    )
    named, crop = crops_after({}, child)
    assert named == crop
    assert crop.num_local == 6


def test_a_config_for_gpus_is_adapted_to_a_cpu():
    cfg = Config(
        dict(
            train_dataloader=dict(pin_memory=True),
            val_dataloader=None,
            val_cfg=dict(bank_dataloader=dict(pin_memory=True)),
        )
    )
    prepare_config(cfg)
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.val_cfg.bank_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in cfg
    cfg.optim_wrapper = dict(type='AmpOptimWrapper')
    with pytest.raises(ValueError, match=r'on\) needs an accelerator'):
        prepare_config(cfg)


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


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (  # mmselfsup 0
            dict(
                data=dict(samples_per_gpu=32),
                optimizer=dict(type='SGD', lr=0.03),
                lr_config=dict(policy='CosineAnnealing'),
                runner=dict(type='EpochBasedRunner', max_epochs=200),
            ),
            ['runner: now train_cfg', 'lr_config: now param_scheduler'],
        ),
        (dict(total_epochs=12), ['total_epochs: now train_cfg.max_epochs']),
        (
            dict(default_scope='mmselfsup', train_dataloader=dict(a=1)),
            ["default_scope='mmselfsup'", "'mmpretrain'"],
        ),
    ],
    ids=str,
)
def test_configs_of_older_stacks(settings, words):
    with pytest.raises(ValueError, match=r'migration\.md') as caught:
        prepare_config(Config(settings))
    for word in words:
        assert word in str(caught.value)
