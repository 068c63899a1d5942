# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..runner_access import require_epochs, unwrapped_model


@HOOKS.register_module()
class FrozenPrototypesHook(Hook):
    """Keep the prototypes as they are in the first epochs.

    Acts just before ``optimizer.step``: without a gradient a parameter gets
    no update, no momentum and no weight decay. (``after_train_iter`` would be
    too late, the optimiser has stepped by then.)

    Args:
        epochs (int): Number of epochs, 0 for none. Defaults to 1.

    Raises:
        ValueError: ``epochs`` is negative.
    """

    def __init__(self, epochs: int = 1) -> None:
        if epochs < 0:
            raise ValueError(
                f'FrozenPrototypesHook: epochs={epochs} must be >= 0'
            )
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimiser."""
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
