# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a run moves in DINO and SCFS beside the optimizer."""

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..runner_access import require_epochs, unwrapped_model


def cosine_momentum(
    iteration: int, max_iters: int, start: float, end: float
) -> float:
    """Momentum of the teacher at an iteration: start -> end by a cosine."""
    phase = math.cos(math.pi * iteration / max_iters)
    return end - (end - start) * (1 + phase) / 2


@HOOKS.register_module()
class MomentumTeacherHook(Hook):
    """Move teacher and centers after each step of the optimizer.

    So once for accumulated batches. After a step that
    ``PerParamClipOptimWrapper`` skipped they stand still, as the student
    does; after one that mmengine's wrapper skipped they move. The momentum
    depends on the run's iteration alone, so it is right after resuming.

    Args:
        momentum (float): Share of itself that the teacher keeps at first.
            Defaults to 0.996.
        end_momentum (float): The share at the end of the run. Defaults to 1.

    Raises:
        ValueError: A momentum is outside [0, 1].
    """

    priority = 'HIGHEST'  # before all that looks at the teacher

    def __init__(
        self, momentum: float = 0.996, end_momentum: float = 1.0
    ) -> None:
        self.momentum = momentum
        self.end_momentum = end_momentum
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f'MomentumTeacherHook: {name}={value} must lie in [0, 1]'
                )

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Have the model move them, if the optimizer was due."""
        wrapper = runner.optim_wrapper
        if not wrapper.should_update():
            return
        momentum = cosine_momentum(
            runner.iter, runner.max_iters, self.momentum, self.end_momentum
        )
        skipped = getattr(wrapper, 'skipped', None)
        unwrapped_model(runner).after_step(momentum, skipped)
        runner.message_hub.update_scalar('train/teacher_momentum', momentum)


@HOOKS.register_module()
class TeacherTemperatureHook(Hook):
    """Set the teacher's temperature before each epoch.

    Linear from ``start`` in the first to ``end`` in the last of the warm-up
    epochs, one value an epoch, then constant.

    Args:
        start (float): Defaults to 0.04.
        end (float): Defaults to 0.07.
        warmup_epochs (int): Defaults to 50.

    Raises:
        ValueError: A temperature is not positive.
    """

    def __init__(
        self, start: float = 0.04, end: float = 0.07, warmup_epochs: int = 50
    ) -> None:
        for name, value in (('start', start), ('end', end)):
            if value <= 0:
                raise ValueError(
                    f'TeacherTemperatureHook: {name}={value} must be > 0'
                )
        self.start = start
        self.end = end
        self.warmup_epochs = warmup_epochs

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, counted from 0."""
        if epoch >= self.warmup_epochs - 1:
            return self.end
        share = epoch / (self.warmup_epochs - 1)
        return self.start + (self.end - self.start) * share

    def before_train(self, runner: Runner) -> None:
        """Refuse a run that has no epochs."""
        require_epochs(runner, type(self).__name__)

    def before_train_epoch(self, runner: Runner) -> None:
        """Give the head its temperature."""
        temperature = self.temperature(runner.epoch)
        unwrapped_model(runner).head.teacher_temp = temperature
        runner.message_hub.update_scalar('train/teacher_temp', temperature)


@HOOKS.register_module()
class FrozenPrototypesHook(Hook):
    """Keep the prototypes as they are in the first epochs.

    Acts just before ``optimizer.step``: without a gradient a parameter gets
    no update, no momentum and no weight decay. (``after_train_iter`` would be
    too late, the optimizer has stepped by then.)

    Args:
        epochs (int): Number of epochs, 0 for none. Defaults to 1.
    """

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimizer."""
        require_epochs(runner, type(self).__name__)
        prototypes = unwrapped_model(runner).neck.prototypes

        def before_step(*_: Any) -> None:
            if runner.epoch < self.epochs:
                for parameter in prototypes.parameters():
                    parameter.grad = None

        optimizer = runner.optim_wrapper.optimizer
        self._handle = optimizer.register_step_pre_hook(before_step)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        self._handle.remove()
