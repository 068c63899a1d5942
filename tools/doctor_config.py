# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Would a config run here? And which data sets are there?"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor_findings import MISSING, NOTE, Finding, first_line
from doctor_fit import Memory, check_fit, check_workers, own_precision
from doctor_packages import load

if TYPE_CHECKING:
    from mmengine.config import Config

# A step of configs/scfs_r50.py on a CPU took 1.15 (half) to 1.21 (fp32) of
# what is counted here.
MARGIN = 1.2
OPTIMIZER_STATES = {'SGD': 1, 'LARS': 1}  # copies of the weights; else 2
SIZE = (500, 375)  # of the made image


def check_datasets(folder: str = 'data') -> Iterator[Finding]:
    """Yield what lies where the configs look for data.

    Nothing is counted: ImageNet would take minutes.
    """
    known, problem = load('mmscfs.datasets.checks.published')
    if known is None:
        yield Finding(folder, f'not looked at: mmscfs is {problem}', NOTE)
        return
    checker = 'tools/dataset_converters/check_dataset.py'
    absent, roots = [], {Path(folder)}
    for dataset in known.known_datasets():
        root = Path(folder, *Path(dataset.root).parts[1:])
        roots |= {root, *root.parents}
        if root.is_dir():
            text = f'{root}; `python {checker} {dataset.name}` counts it'
            yield Finding(dataset.name, text)
        else:
            absent.append(dataset.name)
    own = Path(folder)
    for path in sorted(own.iterdir()) if own.is_dir() else []:
        if path.is_dir() and path not in roots:
            yield Finding(path.name, f'{path}, a folder of your own')
    if absent:
        text = f'{", ".join(absent)}; `python {checker} --list` says where'
        yield Finding('not there', text)


def check_config(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield what keeps a config from running here, without training it.

    Args:
        args (argparse.Namespace): ``config`` and ``cfg_options``.
    """
    module, problem = load('mmscfs')
    if problem:
        yield Finding('config', problem, MISSING, 'the commands above')
        return
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmscfs.engine import prepare_config

    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
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
            settings = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
            if settings:
                images = len(DATASETS.build(settings))
                found.append(f'{images:,} images to {split}')
                if split == 'train':
                    check_batch(cfg.train_dataloader, images)
    except Exception as error:  # of any data set
        remedy = 'the message names it; docs/en/data_preparation.md'
        return Finding('data', first_line(error), MISSING, remedy)
    return Finding('data', ', '.join(found) or 'the config trains on none')


def check_batch(loader: 'Config', images: int) -> None:
    """Check that there is a batch of images.

    Raises:
        ValueError: There is none.
    """
    batch = loader.get('batch_size', 1)
    if loader.get('drop_last') and images < batch:
        raise ValueError(
            f'train_dataloader.batch_size={batch}: the data set has only '
            f'{images} images, and each process needs as many as a batch'
        )


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
    wrapper = cfg.optim_wrapper
    precision = own_precision(wrapper.get('precision', 'fp32'))
    if wrapper.type == 'AmpOptimWrapper':
        precision = 'amp'
    try:
        rule = count_memory(model, cfg, precision != 'fp32')
    except Exception as error:  # of any algorithm: it is an estimate alone
        text = f'not estimated: {first_line(error)}'
        yield Finding('batch size', text, NOTE, 'try one iteration')
        return
    batch = cfg.train_dataloader.batch_size
    source = 'counted in forward passes on made images'
    yield check_fit(rule, precision, batch, source)


def count_memory(model: Any, cfg: 'Config', is_half: bool) -> Memory:
    """Count what a training step allocates, from two forward passes.

    Weights, gradients, the optimiser's states, and what autograd keeps for
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
