# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop a run whose loss is no longer finite, before it is saved.

    Acts after the log has read the losses from the device, so it adds no
    synchronisation, and before checkpoints are written.

    Raises:
        FloatingPointError: Names the iteration, the terms and the last
            checkpoint.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self, runner: Runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Check every logged figure."""
        values = {
            name: torch.as_tensor(value).item()
            for name, value in (outputs or {}).items()
        }
        bad = {k: v for k, v in values.items() if not math.isfinite(v)}
        if not bad:
            return
        last = runner.message_hub.runtime_info.get('last_ckpt')
        remedy = (
            f'resume from the last checkpoint, {last}, which is from before,'
            if last
            else 'no checkpoint was saved yet: start again'
        )
        raise FloatingPointError(
            f'iteration {runner.iter + 1}: not finite: '
            f'{", ".join(f"{k}={v}" for k, v in bad.items())}; {remedy} with '
            'a lower learning rate, a longer warm-up, or '
            "optim_wrapper.precision='bf16' or 'fp32'"
        )
