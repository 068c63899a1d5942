# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from mmscfs.checkpoint import find_backbone, load_found


def fit_backbone(
    model: BaseModel, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Check a state dict before a model with a teacher loads it.

    mmengine loads what fits and logs the rest, so a network may stay random.
    Here the backbone fits completely, or nothing is loaded. Of a checkpoint
    without our teacher, e.g. an exported backbone, it is that of both
    networks, and all else stays as it is.

    Args:
        model (BaseModel): With parts ``backbone`` and ``teacher.backbone``.
        state (dict[str, Tensor]): Any that :func:`find_backbone` knows;
            changed in place.
        prefix (str): How the names of the model's tensors begin.
        *_: What else torch tells such hooks.

    Raises:
        ValueError: There is no backbone in it, or it does not fit.
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
