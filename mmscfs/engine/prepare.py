# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from mmscfs.settings.names import OLD_SECTIONS

from .distributed import choose_wrapper
from .meeting import meet
from .view_settings import CROPS, crops_of

PIPELINE = 'train_dataloader.dataset.pipeline'
LOADER_SECONDS = 600  # to wait for a batch
# mmengine's types, and ours for them, which survive a kill and a full disk.
# Our configs name ours. Others get them here, and the log names each.
SAFE_TYPES = {
    'EpochBasedTrainLoop': 'ResumableEpochLoop',
    'IterBasedTrainLoop': 'ResumableIterLoop',
    'CheckpointHook': 'SafeCheckpointHook',
    'LocalVisBackend': 'SafeLocalVisBackend',
}
# Checkpoints of plain types, which resume under torch 2.6 and later; and the
# answer to the signals of a cluster.
SAFE_HOOKS = ('PlainCheckpointHook', 'PreemptionHook')
OLD_SCOPES = ('mmselfsup', 'mmcls')  # mmpretrain's names of before
# The hooks that mmengine has without a config; None leaves one out.
MMENGINES_HOOKS = (
    *('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler'),
    'checkpoint',
)


def prepare_config(cfg: Config) -> None:
    """Adapt a config in place to this machine, and make its run safe.

    A config of this project keeps all that it says; ``multi_crop`` and the
    pipeline say the same (:func:`apply_multi_crop`). It loses what the machine
    lacks: workers that do not answer are given up after a time, and on a CPU
    no memory is pinned. Several processes wrap the model in our wrapper.
    Another config, of mmpretrain, mmdet or a user, gets ``SAFE_TYPES`` and
    ``SAFE_HOOKS`` where it has mmengine's types, and one log line that names
    each change. At the end the processes of a run with a launcher meet.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: The crops are set twice, the config is that of an older
            stack, it needs an accelerator, or the processes did not meet.

    Example:
        >>> cfg = Config.fromfile('configs/scfs_r50.py')
        >>> prepare_config(cfg)
        >>> Runner.from_cfg(cfg).train()
    """
    check_age(cfg)
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if hook is None and name not in MMENGINES_HOOKS:
            del cfg.default_hooks[name]  # mmengine would refuse None
    apply_multi_crop(cfg)
    share_data_root(cfg)
    changes = use_safe_types(cfg)
    for loader in data_loaders(cfg):
        if loader.get('num_workers'):
            # A file system that does not answer would hold a run forever.
            loader.setdefault('timeout', LOADER_SECONDS)
        else:
            loader.persistent_workers = False
            loader.pop('timeout', None)  # torch refuses one
    if get_device() == 'cpu':
        adapt_to_cpu(cfg)
    choose_wrapper(cfg)
    meet(cfg)
    if changes and is_main_process():
        print_log(
            'The config names types of mmengine. This run has safe ones: '
            f'{", ".join(changes)}',
            logger='current',
        )


def adapt_to_cpu(cfg: Config) -> None:
    """Have a config made for GPUs run without one, in place.

    Raises:
        ValueError: mmengine's mixed precision needs GPUs.
    """
    if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (--amp, --precision) needs "
            'an accelerator: leave out --amp and --precision, or use '
            "'mmpretrain.PerParamClipOptimWrapper', which has bf16 on a CPU"
        )
    for loader in data_loaders(cfg):
        loader.pin_memory = False


def data_loaders(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the config of every data loader, those in loops too."""
    for split in ('train', 'val', 'test'):
        for loader in (
            cfg.get(f'{split}_dataloader'),
            (cfg.get(f'{split}_cfg') or {}).get('bank_dataloader'),
        ):
            if loader:
                yield loader


def check_age(cfg: Config) -> None:
    """Check that a config is not one of mmcv 1, mmselfsup or mmcls.

    Raises:
        ValueError: Names its old settings, and those of today.
    """
    guide = 'docs/en/migration.md names the config to start from'
    old = [key for key in OLD_SECTIONS if key in cfg]
    if old and not (cfg.get('train_dataloader') or cfg.get('test_dataloader')):
        names = '; '.join(f'{key}: now {OLD_SECTIONS[key]}' for key in old)
        raise ValueError(
            f'config {cfg.filename} has the settings of mmcv 1, which '
            f'mmengine does not read ({names}): {guide}'
        )
    if cfg.get('default_scope') in OLD_SCOPES:
        raise ValueError(
            f'default_scope={cfg.default_scope!r} is now mmpretrain, which '
            f"has other names for some types: set it to 'mmpretrain'; {guide}"
        )


def apply_multi_crop(cfg: Config) -> None:
    """Make the variable ``multi_crop`` and the pipeline's MultiCrop equal.

    A config file puts the one into the other, and mmengine copies it. So a
    setting by name (``--cfg-options multi_crop.num_local=6``) is copied into
    the pipeline here, and one by place (``train_dataloader.dataset.pipeline.1
    .num_local=6``) into the variable. Where they differ in the config file
    itself, the pipeline counts, with a warning.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: A setting was given twice, or the pipeline has not exactly
            one MultiCrop to take it.

    Example:
        >>> cfg = Config.fromfile('configs/scfs_r50.py')
        >>> cfg.merge_from_dict({'multi_crop.num_local': 6})
        >>> apply_multi_crop(cfg)
        >>> cfg.train_dataloader.dataset.pipeline[1].num_local
        6
    """
    named, crops = cfg.get(CROPS), crops_of(cfg)
    if not named or crops == [named]:
        return
    file = Config.fromfile(cfg.filename) if cfg.filename else cfg
    by_name = differing(named, file.get('multi_crop') or {})
    crops_before = crops_of(file)
    if len(crops) != 1 or len(crops_before) != 1:
        if by_name:
            raise ValueError(
                f'multi_crop={by_name} has no effect: train_dataloader has '
                f'{len(crops)} MultiCrop transforms. Set them in {PIPELINE}'
            )
        return
    (crop,) = crops
    by_place = differing(crop, crops_before[0])
    for key in by_name.keys() & by_place:
        if by_name[key] != by_place[key]:
            raise ValueError(
                f'multi_crop.{key}={by_name[key]} and {PIPELINE}: MultiCrop.'
                f'{key}={by_place[key]} were both set: set one of them'
            )
    crop.update(by_name)
    named.update(by_place)
    if unused := differing(named, crop):
        print_log(
            f'The crops are those of {PIPELINE}. multi_crop={unused}, which '
            'the config file has or inherits, has no effect.',
            logger='current',
            level=logging.WARNING,
        )


def share_data_root(cfg: Config) -> None:
    """Give a bank without a ``data_root`` that of the images it judges."""
    for split in ('val', 'test'):
        loop = cfg.get(f'{split}_cfg') or {}
        bank = (loop.get('bank_dataloader') or {}).get('dataset')
        if bank and 'data_root' not in bank:
            images = cfg[f'{split}_dataloader'].dataset
            if images.type == bank.type and 'data_root' in images:
                bank.data_root = images.data_root


def differing(settings: Mapping, others: Mapping) -> dict[str, Any]:
    """Return the settings whose values others do not have."""
    return {k: v for k, v in settings.items() if others.get(k) != v}


def use_safe_types(cfg: Config) -> list[str]:
    """Put safe types into a config; return the settings that changed."""
    train = cfg.get('train_cfg')
    if train:
        if 'type' not in train:  # mmengine's other way to say it
            unit = 'Epoch' if train.pop('by_epoch', True) else 'Iter'
            train.type = f'{unit}BasedTrainLoop'
        # What mmengine has by default.
        if not cfg.get('default_hooks'):
            cfg.default_hooks = {}
        cfg.default_hooks.setdefault(
            'checkpoint', ConfigDict(type='CheckpointHook', interval=1)
        )
        if not cfg.get('visualizer'):
            cfg.visualizer = dict(
                type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
            )
    changes, types = [], []
    for path, part in typed_parts(cfg):
        for name, ours in SAFE_TYPES.items():
            if is_mmengines(part.get('type'), name):
                part.type = f'mmpretrain.{ours}'
                changes.append(f'{path}.type={part.type}')
        types.append(str(part.get('type')))
    for name in SAFE_HOOKS if train else SAFE_HOOKS[:1]:
        if not any(name in found for found in types):
            hooks = [*(cfg.get('custom_hooks') or [])]
            cfg.custom_hooks = [*hooks, dict(type=f'mmpretrain.{name}')]
            changes.append(f'custom_hooks.{len(hooks)}.type=mmpretrain.{name}')
    return changes


def typed_parts(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Yield path and config of the loop, the hooks and the log's backends."""
    if cfg.get('train_cfg'):
        yield 'train_cfg', cfg.train_cfg
    for path, parts in (
        ('default_hooks', (cfg.get('default_hooks') or {}).items()),
        ('custom_hooks', enumerate(cfg.get('custom_hooks') or [])),
        (
            'visualizer.vis_backends',
            enumerate((cfg.get('visualizer') or {}).get('vis_backends') or []),
        ),
    ):
        yield from ((f'{path}.{key}', part) for key, part in parts if part)


def is_mmengines(kind: Any, name: str) -> bool:
    """Whether a type, by name or itself, is mmengine's of a name."""
    if inspect.isclass(kind):  # as configs in plain Python import it
        return kind.__name__ == name and kind.__module__.startswith('mmengine')
    return kind in (name, f'mmengine.{name}')
