# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ..losses.functional import at_least_fp32


class TeacherCenter(nn.Module):
    """Moving average of the teacher's outputs, DINO's guard against collapse.

    Outputs are only collected while the loss is computed; the centre follows
    them in :func:`update_centers`, after the optimiser has stepped. So a
    skipped step moves nothing, and accumulated batches count as one.
    In between, :class:`CenterReduction` takes them.

    Args:
        channels (int): Width K of the outputs.
        momentum (float): Share of itself that the centre keeps in an update.
            Defaults to 0.9.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].
    """

    value: Tensor
    collected: Tensor

    def __init__(self, channels: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f'center_momentum={momentum} must lie in [0, 1]')
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(channels))
        # [sum of the outputs (K), their number (1)] not taken yet.
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


class CenterReduction:
    """What all centres collected, being summed over all processes.

    Takes it from the centres at once and sums it in the background, with one
    all-reduce for all of them: started before the backward pass, it is done
    after it. The processes must start theirs in the same order.

    Args:
        centers (Sequence[TeacherCenter]): The centres.
        earlier (CenterReduction, optional): Of an earlier batch of the same
            step, to count as well.
    """

    @torch.no_grad()
    def __init__(
        self,
        centers: Sequence[TeacherCenter],
        earlier: 'CenterReduction | None' = None,
    ) -> None:
        self._earlier = earlier.wait() if earlier else None
        self._sums = torch.cat([center.collected for center in centers])
        for center in centers:
            center.discard()
        self._work = None
        if get_world_size() > 1:
            self._work = dist.all_reduce(self._sums, async_op=True)

    @torch.no_grad()
    def wait(self) -> Tensor:
        """Return the sums of all processes, and of earlier batches."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        if self._earlier is not None:
            self._sums += self._earlier
            self._earlier = None
        return self._sums


@torch.no_grad()
def update_centers(
    centers: Sequence[TeacherCenter],
    reduction: CenterReduction | None = None,
    skipped: Tensor | None = None,
) -> None:
    """Move centres toward the mean output of all processes.

    center = momentum * center + (1 - momentum) * mean. Does nothing for a
    centre that collected nothing.

    Args:
        centers (Sequence[TeacherCenter]): The centres.
        reduction (CenterReduction, optional): The reduction of what these
            centres collected. Defaults to None: it takes place now.
        skipped (Tensor, optional): 1 where nothing is to move, else 0, if
            only the device knows. Defaults to None: they move.
    """
    sums = (reduction or CenterReduction(centers)).wait()
    parts = sums.split([len(center.collected) for center in centers])
    for center, part in zip(centers, parts, strict=True):
        mean = part[:-1] / part[-1].clamp(min=1)
        if skipped is not None:  # the mean may not be finite
            mean = torch.where(skipped > 0, center.value, mean)
        weight = (1 - center.momentum) * (part[-1] > 0).to(mean)
        center.value.lerp_(mean, weight)
