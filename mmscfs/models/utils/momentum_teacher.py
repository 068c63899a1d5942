# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
from typing import Any

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mmscfs.checkpoint import find_backbone, load_found


class MomentumTeacher(nn.Module):
    """Moving-average copies of a student's parts, keyed by their names.

    Only parameters are averaged. The teacher has its own buffers, so batch
    norm's running statistics are filled by its own forward passes. The
    copies need no gradient, and drop nothing: dropout and stochastic depth
    are the student's regularizers.

    Args:
        **parts (nn.Module): Direct children of the student by name; the
            copies have the same names.

    Example:
        >>> student = nn.Sequential()
        >>> student.backbone = nn.Linear(2, 1)
        >>> teacher = MomentumTeacher(backbone=student.backbone)
        >>> _ = nn.init.ones_(teacher.backbone.weight)
        >>> _ = nn.init.zeros_(student.backbone.weight)
        >>> teacher.momentum_update(student, momentum=0.75)
        >>> teacher.backbone.weight.tolist()
        [[0.75, 0.75]]
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

    @torch.no_grad()
    def copy_from(self, student: nn.Module) -> None:
        """Make the teacher equal to the student, buffers too."""
        for name, part in self.named_children():
            own = part.state_dict()
            for key, value in getattr(student, name).state_dict().items():
                own[key].copy_(value)

    def momentum_update(
        self,
        student: nn.Module,
        momentum: float,
        skipped: Tensor | None = None,
    ) -> None:
        """teacher = momentum * teacher + (1 - momentum) * student.

        Args:
            student (nn.Module): The model given at construction.
            momentum (float): Share of itself that the teacher keeps, in
                [0, 1].
            skipped (Tensor, optional): As :func:`move_` takes it. Defaults
                to None.
        """
        own: list[Tensor] = []
        theirs: list[Tensor] = []
        for name, part in self.named_children():
            own.extend(part.parameters())
            theirs.extend(getattr(student, name).parameters())
        move_(own, theirs, 1 - momentum, skipped)


@torch.no_grad()
def move_(
    values: list[Tensor],
    targets: list[Tensor],
    weight: float,
    skipped: Tensor | None = None,
) -> None:
    """values += weight * (targets - values), in place.

    Args:
        values (list[Tensor]): Moved, all of one type.
        targets (list[Tensor]): Of the same shapes and type.
        weight (float): How far they move, in [0, 1].
        skipped (Tensor, optional): A scalar on the device, which the host
            does not read: with 1 the values stand still, with 0 they move,
            to the same bits as without it. Defaults to None.

    Example:
        >>> values = [torch.zeros(2)]
        >>> move_(values, [torch.ones(2)], 0.25)
        >>> move_(values, [torch.ones(2)], 0.25, skipped=torch.ones(()))
        >>> values
        [tensor([0.2500, 0.2500])]
    """
    if skipped is None:
        torch._foreach_lerp_(values, targets, weight)
        return
    skipped = skipped.to(values[0].dtype)
    moved = torch._foreach_lerp(values, targets, weight)
    torch._foreach_mul_(moved, 1 - skipped)
    torch._foreach_mul_(values, skipped)
    torch._foreach_add_(values, moved)


def is_free_to_read(value: Tensor) -> bool:
    """Whether the host gets a value without waiting for a device."""
    return value.is_cpu


def fit_backbone(
    model: BaseModel, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Check a state dict before a model with a teacher loads it.

    mmengine loads what fits and logs the rest, so a network may stay random.
    Here the backbone fits completely, or nothing is loaded. A checkpoint
    without our teacher, e.g. an exported backbone, gives both networks its
    backbone, and all else stays as it is.

    Args:
        model (BaseModel): With parts ``backbone`` and ``teacher.backbone``.
        state (dict[str, Tensor]): Any that :func:`find_backbone` knows;
            changed in place.
        prefix (str): How the names of the model's tensors begin.
        *_: What else torch tells such hooks.

    Raises:
        ValueError: The state dict lacks a backbone, or it does not fit.
    """
    own = {key.removeprefix(prefix): value for key, value in state.items()}
    found = find_backbone(own)
    load_found(model.teacher.backbone, found)
    if any(key.startswith('teacher.backbone.') for key in own):
        return
    print_log(
        f'The backbones of teacher and student get {len(found.state)} '
        f'tensors; all else of {type(model).__name__} stays as it is.',
        logger='current',
    )
    state.clear()
    for key, value in model.state_dict(prefix=prefix).items():
        state[key] = value
    for part in ('backbone', 'teacher.backbone'):
        for key, value in found.state.items():
            state[f'{prefix}{part}.{key}'] = value
