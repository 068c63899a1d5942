# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import sys
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from ..losses import at_least_fp32


def synchronise_on_cpu(model: nn.Module) -> nn.Module:
    """Make a model's synchronised batch norms, in place, ones for a CPU."""
    kinds: tuple[type[nn.Module], ...] = (nn.SyncBatchNorm,)
    if 'mmcv.ops' in sys.modules:  # else nothing can be of its kind
        kinds += (sys.modules['mmcv.ops'].SyncBatchNorm,)
    for module in model.modules():
        if isinstance(module, kinds):
            module.__class__ = CPUSyncBatchNorm
    return model


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, without a GPU.

    torch's and mmcv's need one. Outputs, gradients and running statistics
    are those of plain batch norm over the whole batch, up to rounding. Each
    forward and each backward pass waits for all processes once. It is none
    of torch's by type, as DistributedDataParallel refuses these on a CPU.

    Example:
        >>> CPUSyncBatchNorm(8)(torch.zeros(4, 8, 7, 7)).shape
        torch.Size([4, 8, 7, 7])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) with the statistics of all processes."""
        if not self.training or get_world_size() == 1:
            return _BatchNorm.forward(self, input)
        self._check_input_dim(input)
        with torch.no_grad():
            mean, var, count = global_statistics(input)
            if count > 1:
                self._track(mean, var * (count / (count - 1)))
        return _Normalise.apply(
            input, self.weight, self.bias, mean, var, count, self.eps
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Check that there are channels.

        Raises:
            ValueError: There are none.
        """
        if input.ndim < 2:
            raise ValueError(
                f'input of shape {tuple(input.shape)} must be (B, C, ...)'
            )

    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None  # as it is tracked
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the mean of all batches
            share = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(var.to(self.running_var), share)


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C), biased variance (C) and number of all values.

    Joins the processes' own means and variances, as a sum of squares would
    lose the digits of a variance much smaller than its mean.

    Args:
        x (Tensor): This process's, (B, C, ...).
    """
    # Sums are taken in the type of the running statistics.
    mean, var = at_least_fp32(x.new_zeros(2, x.shape[1]))
    if x.numel():  # a process may have no region of interest
        mean, var = torch.batch_norm_update_stats(x, mean, var, 0.0)
    own = torch.cat([mean, var, mean.new_tensor([x.numel() / len(mean)])])
    parts = [torch.empty_like(own) for _ in range(get_world_size())]
    dist.all_gather(parts, own)
    parts = torch.stack(parts)
    means, variances = parts[:, :-1].chunk(2, dim=1)
    counts = parts[:, -1:]
    count = counts.sum().clamp(min=1)
    mean = (means * counts).sum(0) / count
    var = ((variances + (means - mean) ** 2) * counts).sum(0) / count
    return mean, var, count


class _Normalise(Function):
    """Batch norm by statistics that depend on the inputs of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        return torch.batch_norm(
            x, weight, bias, mean, var, False, 0.0, eps, False
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        # As if the statistics were constants: also this process's sums of
        # the gradient times the normalised input, and of the gradient.
        if x.numel():
            grad_x, *sums = torch.ops.aten.native_batch_norm_backward(
                *(grad, x, weight, mean, var, None, None, False),
                *(ctx.eps, [True] * 3),
            )
        else:
            grad_x, sums = torch.zeros_like(x), mean.new_zeros(2, len(mean))
        grad_weight, grad_bias = sums
        if ctx.needs_input_grad[0]:
            # What the statistics take off: a + b * normalised input.
            sums = torch.cat([grad_bias, grad_weight])
            dist.all_reduce(sums)
            a, b = (sums / count).chunk(2)
            inverse = (var + ctx.eps).rsqrt()
            scale = inverse if weight is None else inverse * weight
            slope = b * scale * inverse
            shape = (-1, *[1] * (x.ndim - 2))
            offset = (a * scale - slope * mean).view(shape)
            grad_x -= torch.addcmul(offset, x, slope.view(shape))
        if weight is None:
            grad_weight = grad_bias = None
        return grad_x, grad_weight, grad_bias, None, None, None, None
