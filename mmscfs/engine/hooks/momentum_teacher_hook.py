# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ..runner_access import unwrapped_model


def cosine_momentum(
    iteration: int, max_iters: int, start: float, end: float
) -> float:
    """Momentum of the teacher at an iteration: start -> end by a cosine."""
    phase = math.cos(math.pi * iteration / max_iters)
    return end - (end - start) * (1 + phase) / 2


@HOOKS.register_module()
class MomentumTeacherHook(Hook):
    """Move teacher and centres after each step that the optimiser takes.

    Acts from inside ``optimizer.step``, so once for accumulated batches and
    not at all when a step is skipped; then it has the model forget the
    skipped batch. Of a step that is skipped on the device it hands on what
    only the device knows. The momentum depends on the run's iteration
    alone, so it is right after resuming.

    Args:
        momentum (float): Share of itself that the teacher keeps at first.
            Defaults to 0.996.
        end_momentum (float): The share at the end of the run. Defaults to 1.

    Raises:
        ValueError: A momentum is outside [0, 1].
    """

    def __init__(
        self, momentum: float = 0.996, end_momentum: float = 1.0
    ) -> None:
        for name, value in (
            ('momentum', momentum),
            ('end_momentum', end_momentum),
        ):
            if not 0 <= value <= 1:
                raise ValueError(
                    f'MomentumTeacherHook: {name}={value} must lie in [0, 1]'
                )
        self.momentum = momentum
        self.end_momentum = end_momentum
        self._stepped = False

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimiser."""

        def after_step(*_: Any) -> None:
            momentum = cosine_momentum(
                runner.iter,
                runner.max_iters,
                self.momentum,
                self.end_momentum,
            )
            skipped = getattr(runner.optim_wrapper, 'skipped', False)
            on_device = isinstance(skipped, Tensor)
            unwrapped_model(runner).after_step(
                momentum, skipped if on_device else None
            )
            runner.message_hub.update_scalar(
                'train/teacher_momentum', momentum
            )
            self._stepped = True

        optimizer = runner.optim_wrapper.optimizer
        self._handle = optimizer.register_step_post_hook(after_step)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Tell the model of a step that was due but skipped."""
        if runner.optim_wrapper.should_update() and not self._stepped:
            unwrapped_model(runner).after_skipped_step()
        self._stepped = False

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        self._handle.remove()
