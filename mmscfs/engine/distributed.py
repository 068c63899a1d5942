# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A model in several processes: its wrapper, and its batch norm."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import parrots_wrapper
from mmpretrain.models import BaseSelfSupervisor
from torch import Tensor, nn
from torch.nn.modules import _functions as torchs

# What sync_bn='torch' makes, and what norm_cfg's SyncBN is.
SYNC_BATCH_NORMS = (nn.SyncBatchNorm, parrots_wrapper.SyncBatchNorm)


class SyncBatchNormFunction(torchs.SyncBatchNorm):
    """torch's function for inputs that no process has empty.

    torch leaves empty inputs out by a mask, whose size the host needs to
    know: it waits for the GPU three times in each layer. All else is torch's,
    to the last bit, and so is the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        process_group: dist.ProcessGroup,
        world_size: int,
    ) -> Tensor:
        """Normalize with the statistics of all processes."""
        if not (
            x.is_contiguous(memory_format=torch.channels_last)
            or x.is_contiguous(memory_format=torch.channels_last_3d)
        ):
            x = x.contiguous()
        channels = x.shape[1]
        mean, invstd = torch.batch_norm_stats(x, eps)
        count = mean.new_full((1,), x.numel() // channels)
        own = torch.cat([mean, invstd, count])
        gathered = gather(own, process_group, world_size)
        means, invstds, counts = gathered.split(channels, dim=1)
        weights = counts.flatten()
        if running_mean is not None:
            weights = weights.to(running_mean.dtype)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x,
            means,
            invstds,
            running_mean,
            running_var,
            momentum,
            eps,
            weights,
        )
        if any(ctx.needs_input_grad):  # not the teacher's
            ctx.save_for_backward(
                x, weight, mean, invstd, counts.to(torch.int32)
            )
            ctx.process_group = process_group
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)


def gather(own: Tensor, group: dist.ProcessGroup, world_size: int) -> Tensor:
    """Return the vectors (C,) of all processes as rows (processes, C)."""
    # One after the other, the only form that compiled code takes.
    vectors = own.new_empty(world_size * len(own))
    rows = vectors.view(world_size, len(own))
    if dist.get_backend(group) == 'gloo':  # has no other way
        dist.all_gather(list(rows), own, group)
    elif hasattr(dist, 'all_gather_single'):  # from torch 2.14 on
        dist.all_gather_single(vectors, own, group)
    else:
        dist.all_gather_into_tensor(vectors, own, group)
    return rows


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's synchronized batch norm, without waiting for the GPU.

    For inputs that no process has empty; results and checkpoints are those
    of torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize inputs (B, C, ...)."""
        world_size = get_world_size(self.process_group)
        if not self.training or world_size == 1 or self.momentum is None:
            return super().forward(x)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return SyncBatchNormFunction.apply(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            self.momentum,
            self.process_group or dist.group.WORLD,
            world_size,
        )


@MODEL_WRAPPERS.register_module()
class GPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper; torch's synchronized batch norm becomes ours.

    Of self-supervised models alone, whose views are never empty. What a
    detector finds may be.

    Args:
        module (nn.Module): The model; its norms are changed.
        **kwargs: Those of :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        if isinstance(module, BaseSelfSupervisor):
            for part in module.modules():
                if type(part) in SYNC_BATCH_NORMS:
                    part.__class__ = SyncBatchNorm  # its state is the same
        super().__init__(module=module, **kwargs)


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for a model without a GPU.

    Synchronized batch norm needs GPUs. Where a config has it, or one of
    mmpretrain's necks by default, plain batch norm takes its place, and the
    log says so.

    Args:
        module (nn.Module): The model; its norms are changed.
        **kwargs: Those of :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        # torch's or mmcv's.
        if any(type(m).__name__ == 'SyncBatchNorm' for m in module.modules()):
            print_log(
                'Batch norm is not synchronized: that needs GPUs. Each '
                'process normalizes with the statistics of its own images, '
                'so results depend on the number of processes.',
                logger='current',
                level=logging.WARNING,
            )
            module = revert_sync_batchnorm(module)
        # mmengine names the GPU of this process's number.
        super().__init__(module=module, **{**kwargs, 'device_ids': None})


WRAPPERS = {
    'cpu': CPUDistributedDataParallel.__name__,
    'cuda': GPUDistributedDataParallel.__name__,
}


def choose_wrapper(cfg: Config) -> None:
    """Have several processes wrap the model in our wrapper, in place.

    Gradients lie where they are summed, which saves a copy of each.
    ``model_wrapper_cfg`` of the config comes before these defaults, and one
    that names another type is left alone. Does nothing for one process.
    """
    device = get_device()
    own = dict(cfg.get('model_wrapper_cfg') or {})
    if (
        device not in WRAPPERS
        or cfg.get('launcher', 'none') == 'none'
        or own.get('type') not in (None, *WRAPPERS.values())
    ):
        return
    cfg.model_wrapper_cfg = dict(
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        gradient_as_bucket_view=True,
    )
    # A config that a run saved may name the other device's.
    cfg.model_wrapper_cfg.update(own, type=WRAPPERS[device])
    cfg.model_wrapper_cfg.pop('device_ids', None)
