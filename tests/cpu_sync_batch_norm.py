# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Synchronized batch norm without a GPU, which torch's needs.

With it, runs of several processes on a CPU equal those of one process, as on
GPUs. ``cfg.model_wrapper_cfg = dict(type=WRAPPER)`` takes it.
"""

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

WRAPPER = 'SynchronizedOnCPU'


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, up to rounding.

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


@MODEL_WRAPPERS.register_module(name=WRAPPER)
class SynchronizedOnCPU(MMDistributedDataParallel):
    """mmengine's wrapper, of a model that is synchronized on the CPU."""

    def __init__(self, module, **kwargs):
        for part in module.modules():
            if isinstance(part, nn.SyncBatchNorm):
                part.__class__ = CPUSyncBatchNorm
        super().__init__(module=module, **kwargs)
