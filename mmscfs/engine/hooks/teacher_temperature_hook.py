# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..runner_access import require_epochs, unwrapped_model


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
        ValueError: A temperature is not positive, or the epochs negative.
    """

    def __init__(
        self, start: float = 0.04, end: float = 0.07, warmup_epochs: int = 50
    ) -> None:
        for name, value in (('start', start), ('end', end)):
            if value <= 0:
                raise ValueError(
                    f'TeacherTemperatureHook: {name}={value} must be > 0'
                )
        if warmup_epochs < 0:
            raise ValueError(
                f'TeacherTemperatureHook: warmup_epochs={warmup_epochs} must '
                'be >= 0'
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
