# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict

from .cpu import adapt_to_cpu

PLAIN = 'PlainCheckpointHook'


def prepare_config(cfg: Config) -> None:
    """Change any config in place so that it runs here.

    Its checkpoints will hold plain types only, which mmengine needs to
    resume under torch 2.6 and later; it runs without an accelerator; and
    without worker processes.

    Raises:
        ValueError: The launcher needs GPUs.
    """
    hooks = [*cfg.get('default_hooks', {}).values()]
    hooks += cfg.get('custom_hooks') or []
    if not any(hook and PLAIN in str(hook.get('type')) for hook in hooks):
        cfg.custom_hooks = [
            *(cfg.get('custom_hooks') or []),
            dict(type=f'mmpretrain.{PLAIN}'),
        ]
    for loader in data_loaders(cfg):
        if not loader.get('num_workers'):
            loader.persistent_workers = False
    adapt_to_cpu(cfg)


def data_loaders(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the config of every data loader, those in loops too."""
    for split in ('train', 'val', 'test'):
        for loader in (
            cfg.get(f'{split}_dataloader'),
            (cfg.get(f'{split}_cfg') or {}).get('bank_dataloader'),
        ):
            if loader:
                yield loader
