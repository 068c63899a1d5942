# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for a model without a GPU, with plain batch norm.

    Synchronised batch norm needs GPUs as soon as there are several
    processes, and not only configs ask for it: some of mmpretrain's necks
    have it by default.

    Args:
        module (nn.Module): The model; its norms are replaced.
        **kwargs: Those of :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)


def adapt_to_cpu(cfg: Config) -> None:
    """Change a config made for GPUs in place so that it runs without one.

    No pinned memory, and for several processes plain instead of synchronised
    batch norm, and gloo, which mmengine cannot start without a GPU. Does
    nothing where there is an accelerator.

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
    cfg.sync_bn = None
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
