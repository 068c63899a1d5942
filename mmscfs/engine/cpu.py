# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for a model without a GPU.

    Synchronized batch norm needs GPUs. Where a config has it, or one of
    mmpretrain's necks by default, plain batch norm takes its place, and the
    log says so.

    Args:
        module (nn.Module): The model; its norms are changed.
        **kwargs: Those of :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        # torch's or mmcv's.
        if any(type(m).__name__ == 'SyncBatchNorm' for m in module.modules()):
            print_log(
                'Batch norm is not synchronized: that needs GPUs. Each '
                'process normalizes with the statistics of its own images, '
                'so results depend on the number of processes.',
                logger='current',
                level=logging.WARNING,
            )
            module = revert_sync_batchnorm(module)
        super().__init__(module=module, **kwargs)


def adapt_to_cpu(cfg: Config) -> None:
    """Change a config made for GPUs in place so that it runs without one.

    No pinned memory, and for several processes plain batch norm.
    ``model_wrapper_cfg`` of the config comes before these defaults. Does
    nothing where there is an accelerator.

    Raises:
        ValueError: mmengine's mixed precision needs GPUs.
    """
    if get_device() != 'cpu':
        return
    if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (--amp, --precision) needs "
            'an accelerator: leave out --amp and --precision, or use '
            "'mmpretrain.PerParamClipOptimWrapper', which has bf16 on a CPU"
        )
    for loader in data_loaders(cfg):
        loader.pin_memory = False
    if cfg.get('launcher', 'none') == 'none':
        return
    defaults = dict(
        type='CPUDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        gradient_as_bucket_view=True,
        device_ids=None,
    )
    own = dict(cfg.get('model_wrapper_cfg') or {})
    if own.get('type') == 'GPUDistributedDataParallel':
        del own['type']  # the config of a run on GPUs
    cfg.model_wrapper_cfg = defaults | own


def data_loaders(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the config of every data loader, those in loops too."""
    for split in ('train', 'val', 'test'):
        for loader in (
            cfg.get(f'{split}_dataloader'),
            (cfg.get(f'{split}_cfg') or {}).get('bank_dataloader'),
        ):
            if loader:
                yield loader
