# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .functional import at_least_fp32

# Numbers in the largest temporary: on a CPU it stays in the cache.
CHUNK_NUMBERS = {'cpu': 1 << 20}
DEFAULT_CHUNK_NUMBERS = 1 << 24


class CosineLogits(NamedTuple):
    """Cosines of embeddings and prototypes, not yet computed.

    There are V B K of them, hundreds of megabytes for 65536 prototypes and
    more, so a loss takes them a chunk of prototypes at a time. The
    prototypes are not normalised, the products are divided by their lengths
    instead: that saves several passes over the largest weight of the model.

    Attributes:
        embeddings (Tensor): Unit vectors of V views of B images, (V, B, C).
        weight (Tensor): Prototypes of any length, shape (K, C).
    """

    embeddings: Tensor
    weight: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape (V, B, K) that they would have."""
        return torch.Size([*self.embeddings.shape[:-1], len(self.weight)])

    def compute(self) -> Tensor:
        """Return all of them, at least float32, shape (V, B, K)."""
        # In chunks, so that autocast makes no copy of all prototypes.
        rows = self.embeddings.shape[:-1].numel()
        chunks = [
            at_least_fp32(self.embeddings @ part.mT) / lengths
            for _, part, lengths in _chunks(self.weight, rows)
        ]
        return torch.cat(chunks, dim=-1)

    def log_likelihood(self, targets: Tensor, temperature: float) -> Tensor:
        """Return sum_b P'_t . log P_v of each pair of views.

        Args:
            targets (Tensor): Probabilities P', shape (T, B, K), without
                gradient.
            temperature (float): Of the softmax that makes P of the cosines.

        Returns:
            Tensor: Shape (T, V), at least float32.
        """
        return _LogLikelihood.apply(
            self.embeddings, self.weight, targets, temperature
        )


def prototype_lengths(weight: Tensor) -> Tensor:
    """Return the lengths of prototypes (K, C), none of them 0."""
    lengths = torch.linalg.vector_norm(at_least_fp32(weight), dim=-1)
    return lengths.clamp_min(1e-12)


class _LogLikelihood(Function):
    """``CosineLogits.log_likelihood``, a chunk of prototypes at a time.

    The backward pass computes the cosines again. Products run in autocast's
    precision, everything else in at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
    ) -> Tensor:
        device = embeddings.device.type
        dtype = embeddings.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        rows = embeddings.flatten(0, 1).to(dtype)
        shape = embeddings.shape[:2]
        log_sum = targets.new_full((len(rows),), -torch.inf)
        likelihood = targets.new_zeros(len(targets), shape[0])
        with torch.autocast(device, enabled=False):
            for chunk, part, lengths in _chunks(weight, len(rows)):
                logits = at_least_fp32(rows @ part.to(dtype).mT)
                logits /= lengths * temperature
                log_sum = torch.logaddexp(log_sum, logits.logsumexp(-1))
                likelihood += torch.einsum(
                    'tbk,vbk->tv',
                    targets[..., chunk],
                    logits.unflatten(0, shape),
                )
        # Targets sum to 1, so log P = logits - log_sum is that in the mean.
        likelihood -= log_sum.unflatten(0, shape).sum(1)
        ctx.save_for_backward(embeddings, weight, targets, log_sum)
        ctx.temperature, ctx.dtype = temperature, dtype
        return likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, weight, targets, log_sum = ctx.saved_tensors
        temperature, dtype = ctx.temperature, ctx.dtype
        shape = embeddings.shape[:2]
        rows = embeddings.flatten(0, 1).to(dtype)
        of_view = grad.sum(0).repeat_interleave(shape[1])[:, None]
        grad_rows = torch.zeros_like(rows, dtype=targets.dtype)
        needs_weight = ctx.needs_input_grad[1]
        grad_weight = torch.empty_like(weight) if needs_weight else None
        for chunk, part, lengths in _chunks(weight, len(rows)):
            typed = part.to(dtype)
            cosines = at_least_fp32(rows @ typed.mT).div_(lengths)
            # d likelihood / d logits = sum_t grad (P'_t - P_v)
            wanted = torch.einsum('tv,tbk->vbk', grad, targets[..., chunk])
            given = (cosines / temperature).sub_(log_sum[:, None]).exp_()
            slope = wanted.flatten(0, 1).addcmul_(given, of_view, value=-1)
            slope /= lengths * temperature
            grad_rows += slope.to(dtype) @ typed
            if grad_weight is not None:
                # Turning a prototype counts, stretching it does not.
                along = torch.einsum('rk,rk->k', slope, cosines) / lengths
                piece = grad_weight[chunk]
                torch.mul(part, -along[:, None], out=piece)
                piece += slope.to(dtype).mT @ rows
        grad_rows = grad_rows.to(embeddings.dtype).unflatten(0, shape)
        return grad_rows, grad_weight, None, None


def _chunks(
    weight: Tensor, rows: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield (place, prototypes (k, C), their lengths (k,))."""
    numbers = CHUNK_NUMBERS.get(weight.device.type, DEFAULT_CHUNK_NUMBERS)
    size = max(1, numbers // max(rows, weight.shape[1]))
    for start in range(0, len(weight), size):
        chunk = slice(start, start + size)
        yield chunk, weight[chunk], prototype_lengths(weight[chunk])
