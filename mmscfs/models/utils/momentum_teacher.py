# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


class MomentumTeacher(nn.Module):
    """Moving-average copies of a student's parts, keyed by their names.

    Only parameters are averaged. Buffers, so batch-norm's running
    statistics, are the teacher's own, filled by its own forward passes. The
    copies need no gradient, and drop nothing: dropout and stochastic depth
    are the student's regularisers.

    Args:
        **parts (nn.Module): Direct children of the student by name; the
            copies have the same names.
    """

    # The names that DINO and SCFS give them.
    backbone: BaseModule
    neck: BaseModule
    search_neck: BaseModule

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_copy(name, part)

    def add_copy(self, name: str, part: nn.Module) -> None:
        """Add a copy of the student's child ``name``."""
        part = copy.deepcopy(part).requires_grad_(False)
        for module in part.modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0
            elif isinstance(module, DropPath):
                module.drop_prob = 0.0
            elif isinstance(getattr(module, 'attn_drop', None), float):
                # mmpretrain's attention, whose hint is torch's for any name.
                module.attn_drop = 0.0  # type: ignore[assignment]
        self.add_module(name, part)

    def _parameter_pairs(self, student: nn.Module) -> tuple[list, list]:
        own: list[nn.Parameter] = []
        theirs: list[nn.Parameter] = []
        for name, part in self.named_children():
            own.extend(part.parameters())
            theirs.extend(getattr(student, name).parameters())
        return own, theirs

    @torch.no_grad()
    def copy_from(self, student: nn.Module) -> None:
        """Make the teacher equal to the student, buffers too."""
        for name, part in self.named_children():
            own = part.state_dict()
            for key, value in getattr(student, name).state_dict().items():
                own[key].copy_(value)

    @torch.no_grad()
    def momentum_update(
        self,
        student: nn.Module,
        momentum: float,
        skipped: Tensor | None = None,
    ) -> None:
        """teacher = momentum * teacher + (1 - momentum) * student.

        Args:
            student (nn.Module): The model given at construction.
            momentum (float): Share of itself that the teacher keeps.
            skipped (Tensor, optional): 1 where nothing is to move, else 0,
                if only the device knows. Defaults to None: it moves.

        Raises:
            ValueError: ``momentum`` is outside [0, 1].
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f'teacher momentum={momentum} must lie in [0, 1]')
        own, theirs = self._parameter_pairs(student)
        if skipped is None:
            torch._foreach_lerp_(own, theirs, 1 - momentum)
            return
        weight = (1 - momentum) * (1 - skipped)
        for mine, other in zip(own, theirs, strict=True):
            mine.lerp_(other, weight.to(mine.dtype))
