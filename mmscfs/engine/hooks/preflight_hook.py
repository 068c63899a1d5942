# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models import selfsup
from mmpretrain.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmscfs.checkpoint import check_same_model, naming
from mmscfs.datasets import KeyedSampler
from mmscfs.models.selfsup.moco_co2 import check_queue_length
from mmscfs.models.utils import (
    check_channels,
    check_colors,
    outputs_of_blank,
)

from ..runner_access import check_not_empty, unwrapped_model
from .unreadable_files_hook import image_files

# Further views these would ignore, or take for other images.
TAKE_TWO_VIEWS = (
    selfsup.BarlowTwins,
    selfsup.BYOL,
    selfsup.DenseCL,
    selfsup.MoCo,
    selfsup.MoCoV3,
    selfsup.SimCLR,
    selfsup.SimSiam,
)


@HOOKS.register_module()
class PreflightHook(Hook):
    """Refuse a run that cannot succeed before it starts.

    Checks a loaded checkpoint against the model, the batches against batch
    norm and the algorithm's queue, that some images of each folder can be
    read, and one sample's views against data preprocessor, algorithm,
    backbone and necks. Knows DINO, SCFS and
    mmpretrain's algorithms of several views; of others it checks the batches,
    and that no colors are left undone.

    A learning rate that would rise to its schedule's end, as after a scaling
    to small batches, is only warned of.

    Raises:
        ValueError: Names the setting, its value and the remedy.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that the checkpoint is one of this algorithm."""
        model = unwrapped_model(runner)
        with naming(runner.cfg.get('load_from') or runner.work_dir):
            check_same_model(
                model.state_dict(), checkpoint, type(model).__name__
            )

    def before_train(self, runner: Runner) -> None:
        """Check batches and views."""
        loader = runner.train_dataloader
        model = unwrapped_model(runner)
        check_not_empty(loader)  # mmengine's own loops do not
        check_batches(model, loader)
        for part in image_files(loader.dataset):
            part.check_some()
        sample = loader.dataset[next(iter(loader.sampler))]
        check_colors(model, loader.dataset, sample)
        views = sample['inputs']
        if isinstance(views, torch.Tensor):
            views = [views]
        shapes = [tuple(view.shape) for view in views]
        if len(shapes[0]) == 3:
            check_channels(model, shapes[0][0])
        precision = getattr(runner.optim_wrapper, 'precision', None)
        with no_undefined_gradients(model, precision):
            if hasattr(model, 'check_fit'):  # of DINO and SCFS
                model.check_fit(shapes, sample.get('data_samples'))
            elif isinstance(model, (*TAKE_TWO_VIEWS, selfsup.SwAV)):
                check_views(model, shapes)
                check_neck(model, shapes)
        for warning in rising_rates(runner.param_schedulers):
            runner.logger.warning(warning)
        if culprit := what_hides_keys(loader, sample):
            runner.logger.warning(
                f'{culprit} hides from MultiCrop which image of which epoch '
                'it crops: the views depend on the number of workers, and a '
                'resumed run sees others. Use KeyedSampler, and ImageFiles '
                'alone or within ConcatDataset and RepeatDataset'
            )


def what_hides_keys(loader: DataLoader, sample: dict) -> str:
    """Name what keeps the keys of ``KeyedSampler`` from MultiCrop, if any.

    With a key, a sample has the same crops once more.
    """
    sampler: Any = loader.sampler
    crops = getattr(sample.get('data_samples'), 'crops', None)
    if crops is None:
        return ''
    if not isinstance(sampler, KeyedSampler):
        return type(sampler).__name__
    again = loader.dataset[next(iter(sampler))]
    is_same = np.array_equal(crops, again['data_samples'].crops)
    return '' if is_same else type(loader.dataset).__name__


def rising_rates(schedulers: Any) -> Iterator[str]:
    """Yield a warning for each schedule that ends above where it began.

    Those of several optimizers, a dict, are not checked.
    """
    if isinstance(schedulers, dict):
        return
    for number, schedule in enumerate(schedulers):
        end = getattr(schedule, 'eta_min', None)
        if schedule.param_name != 'lr' or end is None:
            continue
        # A wrapper adds its settings, unscaled, to those of its optimizer.
        optimizer = getattr(
            schedule.optimizer, 'optimizer', schedule.optimizer
        )
        begin = max(group['initial_lr'] for group in optimizer.param_groups)
        if end > begin:
            yield (
                f'param_scheduler.{number}.eta_min={end:g} is above the '
                f'learning rate {begin:g}, which will rise to it: eta_min is '
                'not scaled with the batch; for a rate that falls set it '
                f'lower, e.g. param_scheduler.{number}.eta_min='
                f'{0.048 * begin:.2g}, the share of the paper'
            )


def check_batches(model: BaseModel, loader: DataLoader) -> None:
    """Check the size of every batch, the last of an epoch included.

    Batch norm needs two images, unless it is synchronized. A queue of keys,
    as MoCo's, holds whole batches.

    Raises:
        ValueError: A batch has another size.
    """
    sampler: Any = loader.sampler  # torch's hints know no length
    batch: Any = loader.batch_size
    images = len(sampler)
    last = 0 if loader.drop_last else images % batch
    synced = nn.SyncBatchNorm if get_world_size() > 1 else ()
    has_batch_norm = any(
        isinstance(module, _BatchNorm) and not isinstance(module, synced)
        for module in model.modules()
    )
    if has_batch_norm and 1 in (batch, last):
        raise ValueError(
            f'train_dataloader.batch_size={batch} makes batches of one '
            f'image out of {images}, which have no statistics for batch '
            'norm: use a batch size of 2 or more and drop_last=True'
        )
    length = getattr(model, 'queue_len', None)
    if length is None:
        return
    check_queue_length(length, batch)
    if last:
        raise ValueError(
            'train_dataloader.drop_last=False ends each epoch in a batch '
            f'of {last} images, but the queue takes only whole batches: set '
            'drop_last=True'
        )


def check_views(model: BaseModel, shapes: Sequence[tuple]) -> None:
    """Check the number of views, each (3, S, S), against an algorithm.

    Raises:
        ValueError: There are more or fewer than it takes.
    """
    wanted, reason = 2, f'model.type={type(model).__name__!r} takes'
    remedy = 'MultiCrop makes two with num_local=0'
    if isinstance(model, selfsup.SwAV):
        crops = list(model.head.loss_module.num_crops)
        wanted, reason = sum(crops), f'model.head.loss.num_crops={crops} are'
        remedy = 'MultiCrop makes 2 + num_local, for num_crops=[2, num_local]'
    if len(shapes) != wanted:
        raise ValueError(
            f'{reason} {wanted} views of an image, but train_dataloader.'
            f'dataset.pipeline makes {len(shapes)}: {remedy}'
        )


@contextmanager
def no_undefined_gradients(
    model: BaseModel, precision: str | None
) -> Iterator[None]:
    """Refuse, inside this context, what PyTorch computes wrongly.

    On a CPU in bf16 its gradient of a strided, padded convolution over a map
    narrower than the stride is memory that nobody wrote to (PyTorch 2.11).

    Raises:
        ValueError: A forward pass meets such a map.
    """

    def check(conv: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
        size = tuple(inputs[0].shape[-2:])
        if min(size) < max(conv.stride) and conv.padding not in (
            'valid',
            (0, 0),
        ):
            raise ValueError(
                f'a convolution of stride {conv.stride} gets a map of {size}, '
                'of which PyTorch has no bf16 gradient on a CPU: set '
                "optim_wrapper.precision='fp32', or make the views larger"
            )

    on_cpu = all(p.is_cpu for p in model.parameters())
    handles = [
        module.register_forward_pre_hook(check)
        for module in model.modules()
        if precision == 'bf16' and on_cpu and isinstance(module, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_neck(model: BaseModel, shapes: Sequence[tuple]) -> None:
    """Send blank views, each (3, S, S), through an algorithm's backbone.

    Raises:
        ValueError: The backbone cannot take a view, or the neck's first
            layer needs another number of channels.
    """
    first = next(m for m in model.neck.modules() if isinstance(m, nn.Linear))
    for shape in sorted(set(shapes)):
        outputs = outputs_of_blank(model.backbone, shape)
        channels = outputs[-1].shape[1]
        if channels != first.in_features:
            raise ValueError(
                f'model.neck.in_channels={first.in_features}, but the last '
                f'output of the backbone {type(model.backbone).__name__} has '
                f'{channels} channels: set model.neck.in_channels={channels}'
            )
