# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ..losses.functional import at_least_fp32


class TeacherCenter(nn.Module):
    """Moving average of the teacher's outputs, DINO's guard against collapse.

    Outputs are only collected while the loss is computed; the centre follows
    them in :func:`update_centers`, after the optimiser has stepped. So a
    skipped step moves nothing, and accumulated batches count as one.

    Args:
        channels (int): Width K of the outputs.
        momentum (float): Share of itself that the centre keeps in an update.
            Defaults to 0.9.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].
    """

    def __init__(self, channels: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f'center_momentum={momentum} must lie in [0, 1]')
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(channels))
        # [sum of the outputs (K), their number (1)] since the last update.
        self.register_buffer(
            'collected', torch.zeros(channels + 1), persistent=False
        )

    @torch.no_grad()
    def collect(self, logits: Tensor) -> None:
        """Remember outputs of shape (..., K) for the next update."""
        logits = at_least_fp32(logits).flatten(0, -2)
        self.collected[:-1] += logits.sum(0)
        self.collected[-1] += len(logits)

    def discard(self) -> None:
        """Forget what was collected, after a step that was skipped."""
        self.collected.zero_()


@torch.no_grad()
def update_centers(centers: Sequence[TeacherCenter]) -> None:
    """Move centres toward the mean output of all processes.

    center = momentum * center + (1 - momentum) * mean, with one all-reduce
    for all of them. Does nothing for a centre that collected nothing.
    """
    collected = torch.cat([center.collected for center in centers])
    all_reduce(collected)
    parts = collected.split([len(center.collected) for center in centers])
    for center, part in zip(centers, parts, strict=True):
        mean = part[:-1] / part[-1].clamp(min=1)
        weight = (1 - center.momentum) * (part[-1] > 0).to(mean)
        center.value.lerp_(mean, weight)
        center.collected.zero_()
