# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from .cpu import adapt_to_cpu

PLAIN = 'PlainCheckpointHook'
PREEMPTION = 'PreemptionHook'
SCALARS = 'LocalVisBackend'
LOADER_SECONDS = 600  # to wait for a batch
EPOCHS, ITERATIONS = 'EpochBasedTrainLoop', 'IterBasedTrainLoop'


def prepare_config(cfg: Config) -> None:
    """Change any config in place so that it runs here, and survives.

    Its checkpoints will hold plain types only, which mmengine needs to
    resume under torch 2.6 and later, and all that it takes to resume
    exactly; the run ends in good order when a cluster asks for it, or when
    its data does not arrive; it runs without an accelerator; and without
    worker processes.

    Raises:
        ValueError: The launcher needs GPUs, or a schedule ends before it
            begins.
    """
    check_schedules(cfg.get('param_scheduler'))
    hooks = [*(cfg.get('default_hooks') or {}).values()]
    hooks += cfg.get('custom_hooks') or []
    types = [str(hook.get('type')) for hook in hooks if hook]
    for name in (PLAIN, PREEMPTION) if cfg.get('train_cfg') else (PLAIN,):
        if not any(name in found for found in types):
            cfg.custom_hooks = [
                *(cfg.get('custom_hooks') or []),
                dict(type=f'mmpretrain.{name}'),
            ]
    make_resumable(cfg)
    for loader in data_loaders(cfg):
        if loader.get('num_workers'):
            # Else a file system that does not answer holds a run for ever.
            loader.setdefault('timeout', LOADER_SECONDS)
        else:
            loader.persistent_workers = False
            loader.pop('timeout', None)  # torch takes none
    adapt_to_cpu(cfg)


def check_schedules(schedules: Any) -> None:
    """Check that every schedule begins before it ends.

    Raises:
        ValueError: Names the settings; mmengine counts in iterations by then.
    """
    if not isinstance(schedules, list):
        return
    for number, schedule in enumerate(schedules):
        begin, end = schedule.get('begin', 0), schedule.get('end')
        if end is not None and end <= begin:
            name = f'param_scheduler.{number}'
            raise ValueError(
                f'{name}.end={end} is not after {name}.begin={begin}: the '
                'schedule would end before it begins. For a short run set '
                f'{name}.begin lower, and the end of the warm-up before it '
                'with it (param_scheduler.0.end)'
            )


def make_resumable(cfg: Config) -> None:
    """Put our forms of mmengine's loops and files into a config."""
    train = cfg.get('train_cfg')
    if train:
        if 'type' not in train:  # mmengine's other way to say it
            by_epoch = train.pop('by_epoch', True)
            train.type = EPOCHS if by_epoch else ITERATIONS
        if is_mmengines(train.type, EPOCHS):
            train.type = 'mmpretrain.ResumableEpochLoop'
        if not cfg.get('default_hooks'):
            cfg.default_hooks = {}
        # What mmengine takes by default.
        cfg.default_hooks.setdefault(
            'checkpoint', ConfigDict(type='CheckpointHook', interval=1)
        )
        if not cfg.get('visualizer'):
            cfg.visualizer = dict(
                type='Visualizer', vis_backends=[dict(type=SCALARS)]
            )
        for backend in cfg.visualizer.get('vis_backends') or []:
            if is_mmengines(backend.type, SCALARS):
                backend.type = f'mmpretrain.Safe{SCALARS}'
    hooks = [*(cfg.get('default_hooks') or {}).values()]
    hooks += cfg.get('custom_hooks') or []
    for hook in hooks:
        if hook and is_mmengines(hook.get('type'), 'CheckpointHook'):
            hook.type = 'mmpretrain.SafeCheckpointHook'


def is_mmengines(kind: Any, name: str) -> bool:
    """Whether a type, by name or itself, is mmengine's of a name."""
    if inspect.isclass(kind):  # as configs in plain Python import it
        return kind.__name__ == name and kind.__module__.startswith('mmengine')
    return kind in (name, f'mmengine.{name}')


def data_loaders(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the config of every data loader, those in loops too."""
    for split in ('train', 'val', 'test'):
        for loader in (
            cfg.get(f'{split}_dataloader'),
            (cfg.get(f'{split}_cfg') or {}).get('bank_dataloader'),
        ):
            if loader:
                yield loader
