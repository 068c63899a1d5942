# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmscfs.models.utils import synchronise_on_cpu


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for a model without a GPU.

    Where a config, or one of mmpretrain's necks by default, has synchronised
    batch norm, which needs GPUs, it becomes ours for the CPU.

    Args:
        module (nn.Module): The model; its norms are changed.
        **kwargs: Those of :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__(module=synchronise_on_cpu(module), **kwargs)


def adapt_to_cpu(cfg: Config) -> None:
    """Change a config made for GPUs in place so that it runs without one.

    No pinned memory, and for several processes gloo, which mmengine cannot
    start without a GPU, and synchronised batch norm of our own. Does nothing
    where there is an accelerator.

    Raises:
        ValueError: The launcher or mmengine's mixed precision needs GPUs.
    """
    if get_device() != 'cpu':
        return
    if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (--amp) needs an "
            'accelerator: leave out --amp, or take '
            "'mmpretrain.PerParamClipOptimWrapper', which knows bf16 on CPU"
        )
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            cfg[f'{split}_dataloader'].pin_memory = False
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher={launcher} needs GPUs, and there is none here; use '
            'tools/dist_train.sh for several processes on CPU'
        )
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='CPUDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        device_ids=None,
    )
