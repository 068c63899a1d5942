# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..message_hub import DeferredMessageHub


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook, without waiting for the device in every step.

    Losses and health figures stay on the device until someone asks for them:
    the log at its interval, a checkpoint, another hook. The log is the same.
    """

    def before_run(self, runner: Runner) -> None:
        """Have the log wait for who asks."""
        super().before_run(runner)
        DeferredMessageHub.adopt(runner.message_hub)

    def before_train(self, runner: Runner) -> None:
        """Learn when the log will ask."""
        super().before_train(runner)
        self._intervals = [
            hook.interval
            for hook in runner.hooks
            if isinstance(hook, LoggerHook)
        ]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Log a step's scalars, and read them if the log is about to.

        Here rather than in the log, so that the timer counts the wait for
        the device as part of the step and not of the next one's loading.
        """
        hub = runner.message_hub
        hub.defer_scalars(
            {f'train/{k}': v for k, v in (outputs or {}).items()}
        )
        if any(
            self.every_n_inner_iters(batch_idx, n) for n in self._intervals
        ):
            hub.receive()

    def after_train_epoch(self, runner: Runner) -> None:
        """Let nothing wait longer than an epoch."""
        runner.message_hub.receive()
