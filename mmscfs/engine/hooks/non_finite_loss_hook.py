# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop a run whose loss is no longer finite, before it is saved.

    Acts when the log has read the losses from the device, so it adds no
    synchronisation: in each iteration with mmengine's ``RuntimeInfoHook``,
    at the log's interval with :class:`DeferredRuntimeInfoHook`; and always
    before a checkpoint is written or a validation begins.

    Raises:
        FloatingPointError: Names the first such iteration, its terms and the
            last checkpoint.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        # Of each term, the iterations that were not looked at yet.
        self._unread: dict[str, list[int]] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Check every logged figure if the log has read it."""
        for name in outputs or {}:
            self._unread.setdefault(name, []).append(runner.iter + 1)
        if not getattr(runner.message_hub, 'waiting', False):
            self.check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check what is left, before the epoch is saved."""
        self.check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """The same before a validation."""
        self.check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The same before any other checkpoint."""
        self.check(runner)

    def check(self, runner: Runner) -> None:
        """Check the figures logged since the last check.

        Raises:
            FloatingPointError: One is not finite.
        """
        unread, self._unread = self._unread, {}
        bad: dict[int, dict[str, float]] = {}
        for name, iterations in unread.items():
            history, _ = runner.message_hub.get_scalar(f'train/{name}').data
            values = history[-len(iterations) :]
            for iteration, value in zip(iterations, values, strict=True):
                if not math.isfinite(value):
                    bad.setdefault(iteration, {})[name] = value
        if not bad:
            return
        first = min(bad)
        last = runner.message_hub.runtime_info.get('last_ckpt')
        remedy = (
            f'resume from the last checkpoint, {last}, which is from before,'
            if last
            else 'no checkpoint was saved yet: start again'
        )
        raise FloatingPointError(
            f'iteration {first}: not finite: '
            f'{", ".join(f"{k}={v}" for k, v in bad[first].items())}; '
            f'{remedy} with a lower learning rate, a longer warm-up, or '
            "optim_wrapper.precision='bf16' or 'fp32'"
        )
