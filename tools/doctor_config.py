# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Would a config run here, and how large a batch fits?"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from command_line import read_config
from doctor_environment import (
    Check,
    Note,
    first_line,
    free_memory,
    gib,
    load,
    num_cores,
)

if TYPE_CHECKING:
    from mmengine.config import Config


def config_checks(args: argparse.Namespace) -> Iterator[Check]:
    """Yield what could keep a config from running here, without training it.

    A check returns a text or raises, see doctor_environment.py. Those that
    build on another one's work are not yielded where it failed.

    Args:
        args (argparse.Namespace): ``config`` and ``cfg_options``.
    """
    read: list[Config] = []
    built: list[Any] = []
    yield 'config', partial(read_it, args, read), 'correct what it names'
    for cfg in read:
        remedy = 'see docs/en/data_preparation.md'
        yield 'data', partial(count_images, cfg), remedy
        remedy = 'correct the setting of model that it names'
        yield 'model', partial(build_it, cfg, built), remedy
        for model in built:
            remedy = 'try one iteration'
            yield 'batch size', partial(estimate, cfg, model), remedy
        for problem, remedy in departing(cfg):
            yield 'settings', partial(note, problem), f'--cfg-options {remedy}'
        yield 'workers', partial(choose_workers, cfg), ''


def departing(cfg: 'Config') -> list[tuple[str, str]]:
    """Return what is known to fail with this many images, and remedies."""
    from mmengine.registry import DATASETS

    from mmscfs.recipes import departures

    try:
        images = len(DATASETS.build(cfg.train_dataloader.dataset))
    except (AttributeError, FileNotFoundError, ValueError):
        return []  # the line of the data says it
    return list(departures(cfg, images))


def note(text: str) -> str:
    """Give a text as a note."""
    raise Note(text)


def read_it(args: argparse.Namespace, read: list['Config']) -> str:
    """Read the config as tools/train.py does."""
    load('mmscfs')
    from mmengine.registry import init_default_scope

    from mmscfs.engine import prepare_config

    cfg = read_config(args.config, args.cfg_options, for_training=True)
    prepare_config(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    read.append(cfg)
    return args.config


def count_images(cfg: 'Config') -> str:
    """Check the data sets as tools/train.py does before it starts."""
    from mmengine.registry import DATASETS

    from mmscfs.datasets.checks import check_data
    from mmscfs.engine.screen import prints_in_log

    found = []
    with prints_in_log():  # of pycocotools
        check_data(cfg)
    for split in ('train', 'val'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if not loader.get('dataset'):
            continue
        with prints_in_log():
            images = len(DATASETS.build(loader['dataset']))
        found.append(f'{images:,} images to {split}')
        batch = loader.get('batch_size', 1)
        if split == 'train' and loader.get('drop_last') and images < batch:
            raise ValueError(
                f'train_dataloader.batch_size={batch}: the data set has '
                f'only {images} images, and each process needs a whole batch'
            )
    return ', '.join(found) or 'the config trains on none'


def build_it(cfg: 'Config', built: list) -> str:
    """Build the model, and say how large it is."""
    from mmengine.registry import MODELS

    settings = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(settings)
    built.append(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f'{type(model).__name__}, {count:,} parameters'


def estimate(cfg: 'Config', model: Any) -> str:
    """Say how many images of a pre-training fit; raise if they are few."""
    from mmpretrain.models.selfsup.base import BaseSelfSupervisor

    from mmscfs.engine.optimizers import default_precision
    from mmscfs.recipes.memory import SHARE, step_memory

    if not isinstance(model, BaseSelfSupervisor):
        return ''
    ours = cfg.optim_wrapper.type.endswith('PerParamClipOptimWrapper')
    default = 'auto' if ours else 'fp32'
    precision = cfg.optim_wrapper.get('precision', default)
    if precision == 'auto':
        precision = default_precision()
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':
        precision = 'amp'
    try:
        memory = step_memory(cfg, model, precision != 'fp32')
    except FileNotFoundError:  # the line of the data says it
        return ''
    except Exception as error:  # of any algorithm: it is an estimate alone
        raise Note(f'not estimated: {first_line(error)}') from error
    batch, free = cfg.train_dataloader.batch_size, free_memory()
    fits = memory.largest(SHARE * free)
    text = (
        f'up to {fits} images fit, the config has {batch} ({precision}, an '
        f'estimate: a step of {batch} takes {gib(memory.of(batch))} of '
        f'{gib(free)}, of which {1 - SHARE:.0%} are left for others)'
    )
    if fits >= batch:
        return text
    options = f'train_dataloader.batch_size={max(fits, 2)}'
    if fits < 2:
        options += (
            ' model.checkpoint_activations=True, or fewer local views, '
            'multi_crop.num_local'
        )
    raise Note(text, f'--auto-scale-lr --cfg-options {options}')


def choose_workers(cfg: 'Config') -> str:
    """Say how many workers load best; raise if the config has more."""
    given = (cfg.get('train_dataloader') or {}).get('num_workers', 0)
    cores, gpus = num_cores(), load('torch').cuda.device_count()
    # A CPU loads 100 times faster than it trains.
    wanted = max(cores // gpus - 1, 1) if gpus else 1
    text = f'{given} to load, for {cores} cores and {gpus} GPUs'
    if given > wanted:
        options = f'--cfg-options train_dataloader.num_workers={wanted}'
        raise Note(f'{text}: {wanted} are enough', options)
    return text
