# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

EARLY = 100  # iterations: the early look at a run without epochs


class RecurringHook(Hook, ABC):
    """Look at some training images now and then; the base of such hooks.

    Before the first step, every few epochs, and after the last one.

    Args:
        interval (int): Epochs between two looks. Defaults to 10.
        iter_interval (int): Iterations between them in a run that has no
            epochs. Defaults to 5000.
        num_images (int): Training images.

    Raises:
        ValueError: A setting is outside its range.
    """

    priority = 'VERY_LOW'  # after the teacher has moved
    # Whether it also looks after the first epoch.
    looks_early: ClassVar[bool] = False
    least_images: ClassVar[int] = 1

    def __init__(
        self, interval: int, iter_interval: int, num_images: int
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('iter_interval', iter_interval, 1),
            ('num_images', num_images, self.least_images),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f'{type(self).__name__}: {name}={value!r} must be a whole '
                    f'number >= {least}; to do without it, remove the hook '
                    'from default_hooks'
                )
        self.interval = interval
        self.iter_interval = iter_interval
        self.num_images = num_images

    @abstractmethod
    def look(self, runner: Runner, step: int, epoch: int) -> None:
        """Look after ``step`` iterations and ``epoch`` epochs."""

    def before_train(self, runner: Runner) -> None:
        """Look at what there is before the first step."""
        if runner.iter == 0:
            self.look(runner, 0, 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look if it is due, by epochs."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and (
            (self.looks_early and runner.epoch == 0)
            or self.every_n_epochs(runner, self.interval)
            or self.is_last_train_epoch(runner)
        ):
            self.look(runner, runner.iter, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Look if it is due, by iterations."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop) and (
            (self.looks_early and runner.iter + 1 == EARLY)
            or self.every_n_train_iters(runner, self.iter_interval)
            or self.is_last_train_iter(runner)
        ):
            self.look(runner, runner.iter + 1, runner.epoch)
