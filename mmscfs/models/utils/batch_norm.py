# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.dist import get_world_size
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a norm sees only this process's images."""
    synced = nn.SyncBatchNorm if get_world_size() > 1 else ()
    return any(
        isinstance(module, _BatchNorm) and not isinstance(module, synced)
        for module in model.modules()
    )
