# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device


def adapt_to_cpu(cfg: Config) -> None:
    """Change a config made for GPUs in place so that it runs without one.

    Plain instead of synchronised batch norm, no pinned memory, and for
    several processes gloo, which mmengine cannot start without a GPU. Does
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
    use_plain_batch_norm(cfg.get('model', {}))
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
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        device_ids=None,
    )


def use_plain_batch_norm(model: dict) -> None:
    """Turn every ``type='SyncBN'`` below a model's config into 'BN'."""
    parts = model.values() if isinstance(model, dict) else model
    for part in parts:
        if isinstance(part, dict) and part.get('type') == 'SyncBN':
            part['type'] = 'BN'
        elif isinstance(part, (dict, list, tuple)):
            use_plain_batch_norm(part)
