#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare training on several processes with training on one.

The same recipe, seed and global batch are trained by the runner on one
process and on others, on the CPU and in double precision, each process with
its share of the images and with synchronized batch norm. The table has the
largest differences from one process at the end of the run, and of the losses
those of every step, averaged over the processes. Networks and images are tiny.
The exit code is 1 if one of them is more than rounding.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from chaos import make_images
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from toy_runs import in_processes

from mmscfs.engine import prepare_config
from mmscfs.engine.distributed import CPUDistributedDataParallel
from mmscfs.engine.runner_access import unwrapped_model

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
STEPS_PER_EPOCH, EPOCHS = 4, 2
TOLERANCE = 1e-9
LABELS = ('method', 'accumulate', 'processes')
IMAGE = 64  # px
SMALL = {
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'optim_wrapper.optimizer.lr': 0.01,  # high ones blow rounding up
}
SMALL_DINO = SMALL | {
    'model.neck.hidden_channels': 32,
    'model.neck.bottleneck_channels': 16,
    'model.neck.num_prototypes': 48,
    'optim_wrapper.precision': 'fp32',  # no autocast
    # As the paper's; Adam divides gradients that are all rounding by others.
    'optim_wrapper.optimizer.type': 'SGD',
    'optim_wrapper.optimizer.momentum': 0.9,
    'default_hooks.frozen_prototypes.epochs': 1,
}
# Recipes by method, and what makes them small.
RECIPES = {
    'dino': (
        'dino/dino_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
        SMALL_DINO,
    ),
    'scfs': (
        'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
        SMALL_DINO
        | {
            'model.search_neck.mid_channels': 4,
            'model.search_neck.hidden_channels': 32,
            'model.search_neck.out_channels': 16,
        },
    ),
    'co2': (
        'co2/mocov2-co2_resnet50_8xb32-coslr-200e_in1k.py',
        SMALL
        | {
            'model.neck.in_channels': 64,
            'model.neck.hid_channels': 32,
            'model.neck.out_channels': 16,
            'model.feat_dim': 16,
            'sync_bn': 'torch',
            'train_dataloader.dataset.pipeline.1.global_size': IMAGE,
        },
    ),
}
# Of a process's own images: not the mean of the processes' values.
OWN = 'feature_std'


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes; torch's needs a GPU.

    It is not of torch's type, which DistributedDataParallel refuses on a CPU.
    """

    def _check_input_dim(self, x):
        """Take inputs of any dimension."""

    def forward(self, x):
        """Normalize (B, C, ...) with the statistics of all processes."""
        if not self.training:
            return super().forward(x)
        dims, shape = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        # The backward pass of each sum is a sum over the processes, too.
        count = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = all_reduce(x.sum(dims)) / count
        x = x - mean.view(shape)
        var = all_reduce((x * x).sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        x = x * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x


@MODEL_WRAPPERS.register_module(force=True)  # the file may be run twice
class SynchronizedOnCPU(CPUDistributedDataParallel):
    """The wrapper for a CPU, of a model that is synchronized there."""

    def __init__(self, module, **kwargs):
        for part in module.modules():
            if isinstance(part, nn.SyncBatchNorm):
                part.__class__ = CPUSyncBatchNorm
        super().__init__(module=module, **kwargs)


def make_config(method: str, accumulate: int, batch: int, data: str) -> Config:
    """Return the small config of a method, for one process."""
    path, small = RECIPES[method]
    cfg = Config.fromfile(CONFIGS / path)
    cfg.merge_from_dict(
        small
        | {
            'train_dataloader.batch_size': batch,
            'train_dataloader.num_workers': 0,
            'train_dataloader.dataset.data_root': data,
            'train_dataloader.dataset.data_prefix': '',
            'train_cfg.max_epochs': EPOCHS,
            'optim_wrapper.accumulative_counts': accumulate,
            'default_hooks.checkpoint': None,
            'log_level': 'ERROR',
        }
    )
    cfg.default_hooks.pop('view_recall', None)  # takes float32
    if method == 'co2':
        cfg.model.queue_len = 3 * batch  # it comes round
    return cfg


class Recorder(Hook):
    """Keep the weights at the start, and the losses of every step."""

    def before_train(self, runner: Runner) -> None:
        """Keep the weights."""
        self.start = student_weights(unwrapped_model(runner))
        self.losses = []

    def after_train_iter(self, runner: Runner, *_, outputs, **__) -> None:
        """Keep what is logged of a step."""
        values = {k: v.item() for k, v in outputs.items() if k != OWN}
        self.losses.append(values)


def train_part(cfg: Config, processes: int) -> dict:
    """Train as one of several processes; return what came out."""
    warnings.simplefilter('ignore')  # torch's, of accumulated batches
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    cfg.launcher = 'pytorch' if processes > 1 else 'none'
    cfg.train_dataloader.batch_size //= processes
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    model = unwrapped_model(runner)
    model.data_preprocessor.register_forward_hook(
        lambda module, inputs, data: (
            data | dict(inputs=[view.double() for view in data['inputs']])
        )
    )
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    parts = state_parts(runner, model)
    moved = max_difference(parts['weights'], recorder.start)
    return dict(losses=recorder.losses, parts=parts, moved=moved)


def student_weights(model: nn.Module) -> dict:
    """Return copies of what the optimizer moves, by name."""
    named = model.named_parameters()
    return {n: p.detach().clone() for n, p in named if p.requires_grad}


def state_parts(runner: Runner, model: nn.Module) -> dict[str, dict]:
    """Return all that training moves, by part and name."""
    weights = student_weights(model)
    parts = dict(weights=weights, teacher={}, memory={}, buffers={})
    parameters = {name for name, _ in model.named_parameters()}
    for name, value in model.state_dict().items():
        if name in weights:
            continue
        part = 'teacher' if name in parameters else 'buffers'
        if name.endswith('.value') or name == 'queue':
            part = 'memory'
        parts[part][name] = value
    state = runner.optim_wrapper.optimizer.state_dict()['state']
    parts['optimizer'] = {
        f'{index}.{name}': value
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }
    return parts


def max_difference(one: dict, other: dict) -> float:
    """Return the largest difference of tensors or numbers of equal names.

    Raises:
        ValueError: The names differ.
    """
    if one.keys() != other.keys():
        raise ValueError(f'only one has {sorted(one.keys() ^ other.keys())}')
    pairs = ((one[name], other[name]) for name in one)
    differences = (torch.as_tensor(a - b).abs().max() for a, b in pairs)
    return max((x.item() for x in differences), default=0.0)


def train(cfg: Config, processes: int) -> list[dict]:
    """Train on some processes; return what each of them made."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = f'{folder}/work'
        return in_processes(
            train_part, processes, Path(folder), cfg, processes
        )


def compare(alone: dict, results: list[dict], batch: int) -> dict[str, float]:
    """Return the differences of what several processes saved from one's."""
    first = results[0]
    means = [
        {name: sum(s[name] for s in step) / len(step) for name in step[0]}
        for step in zip(*(r['losses'] for r in results), strict=True)
    ]
    differences = dict(
        losses=max(
            max_difference(mean, loss)
            for mean, loss in zip(means, alone['losses'], strict=True)
        )
    )
    for part, expected in alone['parts'].items():
        found = dict(first['parts'][part])
        if 'queue' in found:
            found['queue'] = in_image_order(
                found['queue'], len(results), batch, len(means)
            )
        differences[part] = max_difference(found, expected)
    differences['between'] = max(
        max_difference(other['parts'][part], first['parts'][part])
        for other in results[1:]
        for part in first['parts']
    )
    return differences


def in_image_order(
    queue: Tensor, processes: int, batch: int, steps: int
) -> Tensor:
    """Put a queue's keys (C, K) in the order that one process gives them.

    A batch's keys lie there by process, whose images are every n-th of the
    batch. The losses do not depend on the order.
    """
    filled = min(steps * batch, queue.shape[1])
    new = queue[:, :filled].unflatten(1, (-1, processes, batch // processes))
    queue = queue.clone()
    queue[:, :filled] = new.transpose(-1, -2).flatten(1)
    return queue


def measure(
    method: str,
    accumulate: int,
    processes: Sequence[int],
    batch: int,
    wrappers: Sequence[str] = ('SynchronizedOnCPU',),
) -> list[dict]:
    """Train a method on one process and on others; return a row for each.

    Args:
        method (str): A key of ``RECIPES``.
        accumulate (int): Batches that a step accumulates.
        processes (Sequence[int]): Numbers of processes.
        batch (int): Images in a batch of all processes.
        wrappers (Sequence[str]): Of the model, each tried on all numbers.
    """
    rows = []
    with tempfile.TemporaryDirectory() as data:
        make_images(Path(data), STEPS_PER_EPOCH * batch)

        def run(number: int, wrapper: str) -> list[dict]:
            cfg = make_config(method, accumulate, batch, data)
            cfg.model_wrapper_cfg = dict(
                type=wrapper,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
            return train(cfg, number)

        (alone,) = run(1, wrappers[0])
        for number, wrapper in product(processes, wrappers):
            row = dict(method=method, accumulate=accumulate, processes=number)
            row |= compare(alone, run(number, wrapper), batch)
            rows.append(row | dict(moved=alone['moved']))
    return rows


def main() -> int:
    """Compare, print the table, return the exit code."""
    # On the CPU, and before a fork, which threads do not survive.
    os.environ.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    worst = 0.0
    for method in RECIPES:
        for accumulate in (1, 2):
            for row in measure(method, accumulate, [2, 4], 16):
                print(*(f'{k} {row.pop(k)}' for k in LABELS), sep=', ')
                for name, value in row.items():
                    print(f'    {name:10} {value:.1e}', flush=True)
                row.pop('moved')
                worst = max(worst, *row.values())
    if worst > TOLERANCE:
        print(f'a difference of {worst:.1e} is more than rounding')
        return 1
    return 0


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    raise SystemExit(main())
