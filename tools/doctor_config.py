# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Would a config run here, and how large a batch fits?"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from doctor_environment import (
    GIB,
    MISSING,
    NOTE,
    Finding,
    first_line,
    free_memory,
    gib,
    load,
    num_cores,
)

if TYPE_CHECKING:
    from mmengine.config import Config

# A step of configs/scfs_r50.py on a CPU took 1.15 (half) to 1.21 (fp32) of
# what is counted here.
MARGIN = 1.2
SHARE = 0.85  # of what is free; the rest is for workers and workspaces
OPTIMIZER_STATES = {'SGD': 1, 'LARS': 1}  # copies of the weights; else 2
SIZE = (500, 375)  # of the made image


class Memory(NamedTuple):
    """What a training step takes, in bytes: fixed + batch x an image."""

    fixed: float
    image: float

    def batch(self, free: float) -> int:
        """Return the images that fit."""
        return max(int((SHARE * free - self.fixed) // self.image), 0)


def check_config(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield what keeps a config from running here, without training it.

    Args:
        args (argparse.Namespace): ``config`` and ``cfg_options``.
    """
    module, problem = load('mmscfs')
    if problem:
        yield Finding('config', problem, MISSING, 'the commands above')
        return
    from mmengine.registry import init_default_scope

    from mmscfs.settings import read_config

    try:
        cfg, _ = read_config(args.config, args.cfg_options, for_training=True)

        from mmscfs.engine import prepare_config  # slow

        prepare_config(cfg)
    except Exception as error:  # a config is code, which raises anything
        remedy = 'correct what the message names'
        yield Finding('config', first_line(error), MISSING, remedy)
        return
    yield Finding('file', args.config)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    yield check_data(cfg)
    yield from check_model(cfg)
    loader = cfg.get('train_dataloader') or {}
    if 'num_workers' in loader:
        yield check_workers(loader.num_workers)


def check_data(cfg: 'Config') -> Finding:
    """Check the data sets as tools/train.py does before it starts."""
    from mmengine.registry import DATASETS

    from mmscfs.datasets.checks import check_data

    try:
        check_data(cfg)
        found = []
        for split in ('train', 'val'):
            loader = cfg.get(f'{split}_dataloader') or {}
            if not loader.get('dataset'):
                continue
            images = len(DATASETS.build(loader['dataset']))
            found.append(f'{images:,} images to {split}')
            batch = loader.get('batch_size', 1)
            if split == 'train' and loader.get('drop_last') and images < batch:
                raise ValueError(
                    f'train_dataloader.batch_size={batch}: the data set has '
                    f'only {images} images, and each process needs a whole '
                    'batch'
                )
    except Exception as error:  # of any data set
        remedy = 'the message names it; docs/en/data_preparation.md'
        return Finding('data', first_line(error), MISSING, remedy)
    return Finding('data', ', '.join(found) or 'the config trains on none')


def check_model(cfg: 'Config') -> Iterator[Finding]:
    """Build the model, and count what a step of it takes."""
    from mmengine.registry import MODELS
    from mmpretrain.models.selfsup.base import BaseSelfSupervisor

    try:
        settings = dict(cfg.model)
        if cfg.get('data_preprocessor'):
            settings.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = MODELS.build(settings)
    except Exception as error:  # of any model
        remedy = 'correct the setting of model that the message names'
        yield Finding('model', first_line(error), MISSING, remedy)
        return
    count = sum(parameter.numel() for parameter in model.parameters())
    yield Finding('model', f'{type(model).__name__}, {count:,} parameters')
    if not isinstance(model, BaseSelfSupervisor):
        return
    precision = precision_of(cfg.optim_wrapper)
    try:
        rule = count_memory(model, cfg, precision != 'fp32')
    except Exception as error:  # of any algorithm: it is an estimate alone
        text = f'not estimated: {first_line(error)}'
        yield Finding('batch size', text, NOTE, 'try one iteration')
        return
    yield check_fit(rule, precision, cfg.train_dataloader.batch_size)


def precision_of(wrapper: 'Config') -> str:
    """Return the precision in which a config trains here."""
    from mmscfs.engine.optimizers import (
        default_precision,
    )

    if wrapper.type == 'AmpOptimWrapper':
        return 'amp'
    precision = wrapper.get('precision', 'fp32')
    return default_precision() if precision == 'auto' else precision


def check_fit(rule: Memory, precision: str, batch: int) -> Finding:
    """Say how many images a process can train on at a time.

    Args:
        rule (Memory): The memory of a step.
        precision (str): Its precision.
        batch (int): The config's batch size.
    """
    free = free_memory()
    fits = rule.batch(free)
    text = (
        f'up to {fits} images fit, the config has {batch} ({precision}: '
        f'{gib(rule.fixed)} and {rule.image / GIB:.2f} GiB an image, counted '
        f'in forward passes; {gib(free)} free, {1 - SHARE:.0%} left for '
        'others)'
    )
    if fits >= batch:
        return Finding('batch size', text)
    options = f'train_dataloader.batch_size={max(fits, 2)}'
    if fits < 2:
        options += (
            ' model.checkpoint_activations=True, or fewer local views, '
            'train_dataloader.dataset.pipeline.1.num_local'
        )
    remedy = f'--auto-scale-lr --cfg-options {options}'
    return Finding('batch size', text, NOTE, remedy)


def check_workers(settings: int) -> Finding:
    """Say how many workers load best.

    Args:
        settings (int): The config's number.
    """
    torch, _ = load('torch')
    cores = num_cores()
    wanted, why = 1, 'a CPU loads 100 times faster than it trains'
    if torch is not None and torch.cuda.is_available():
        each = max(cores // torch.cuda.device_count() - 1, 1)
        wanted, why = min(each, settings), f'{cores} cores for the GPUs'
    text = f'{wanted}, the config has {settings} ({why})'
    if wanted >= settings:
        return Finding('workers', text)
    remedy = f'--cfg-options train_dataloader.num_workers={wanted}'
    return Finding('workers', text, NOTE, remedy)


def count_memory(model: Any, cfg: 'Config', is_half: bool) -> Memory:
    """Count what a training step allocates, from two forward passes.

    Weights, gradients, the optimizer's states, and what autograd keeps for
    the backward pass, which grows with the batch. On a GPU these are the
    same tensors; what its libraries work in comes on top.

    Args:
        model (BaseSelfSupervisor): The algorithm.
        cfg (Config): Its config.
        is_half (bool): Whether it trains in half precision.
    """
    optimizer = cfg.optim_wrapper.optimizer
    states = OPTIMIZER_STATES.get(str(optimizer.type), 2)
    fixed = sum(p.nbytes for p in model.parameters())
    fixed += (1 + states) * sum(
        p.nbytes for p in model.parameters() if p.requires_grad
    )
    fixed += sum(buffer.nbytes for buffer in model.buffers())
    sample = make_sample(cfg)
    two, three = (kept_bytes(model, [sample] * n, is_half) for n in (2, 3))
    image = three - two
    # Copies of the weights in half precision are kept once for all images.
    fixed += max(two - 2 * image, 0)
    return Memory(MARGIN * fixed, MARGIN * image)


def make_sample(cfg: 'Config') -> dict:
    """Send a made image through the config's own pipeline."""
    import cv2
    import numpy as np
    from mmengine.dataset import Compose

    from mmscfs.datasets.samplers import SampleKey

    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, 'made.png'))
        cv2.imwrite(path, noise.astype(np.uint8))
        return pipeline(dict(img_path=path, sample_idx=SampleKey(0, 0)))


def kept_bytes(model: Any, samples: list[dict], is_half: bool) -> int:
    """Return the bytes that autograd keeps of a forward pass."""
    import torch
    from mmengine.dataset import default_collate

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    data = model.data_preprocessor(default_collate(samples), True)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
        torch.autocast('cpu', torch.bfloat16, enabled=is_half),
    ):
        losses = model(**data, mode='loss')  # alive, so that nothing is freed
        total = sum(kept.values())
    del losses
    return total
