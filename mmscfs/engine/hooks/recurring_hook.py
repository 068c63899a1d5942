# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What looks at some training images now and then."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar

import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.subsets import draw
from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.datasets.wrappers import find_multi_crop
from mmscfs.models.utils import evaluating

from ..loops.features import choose_backbone, named_outputs, normalize
from ..resume.random_states import kept_random_states

EARLY = 100  # iterations: the early look at a run without epochs
SEED = 2023  # of images and views: the same at every look
BATCH = 64  # views


class RecurringHook(Hook, ABC):
    """Look at some training images now and then; the base of such hooks.

    Before the first step, every few epochs, and after the last one.

    Args:
        num_images (int): Training images.
        interval (int): Epochs between two looks. Defaults to 10.
        iter_interval (int): Iterations between them in a run that has no
            epochs. Defaults to 5000.

    Raises:
        ValueError: A setting is outside its range.
    """

    priority = 'VERY_LOW'  # after the teacher has moved
    # Whether it also looks after the first epoch.
    looks_early: ClassVar[bool] = False
    least_images: ClassVar[int] = 1

    def __init__(
        self, num_images: int, interval: int = 10, iter_interval: int = 5000
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

    def log(
        self, runner: Runner, figures: dict[str, float], step: int, epoch: int
    ) -> None:
        """Log figures as of an epoch, or of an iteration without epochs."""
        is_by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        at = epoch if is_by_epoch else step
        runner.visualizer.add_scalars(figures, step=at)


@torch.no_grad()
def view_outputs(
    model: BaseModel,
    dataset: BaseDataset,
    num_images: int,
    num_views: int,
    network: str | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield what a backbone makes of views of some images, a few at a time.

    The images are drawn, the same ones always. Their views are global
    ones of its MultiCrop, always the same. An image that cannot be read is
    left out: the training names it. The network runs in eval mode, and random
    states stay as they were.

    Yields:
        dict[str, Tensor]: By layer, the outputs for all views of an image,
        then those of the next: (M * num_views, ...).

    Raises:
        ValueError: The pipeline has no MultiCrop.
    """
    found = find_multi_crop(dataset)
    if found is None:
        raise ValueError(
            'ViewRecallHook and RepresentationHook need a MultiCrop in '
            'train_dataloader.dataset.pipeline: remove these hooks from '
            'default_hooks, or name the config of a pre-training by several '
            'views'
        )
    load, crop = found
    crop.num_local = 0
    backbone = choose_backbone(model, network)
    places = draw(range(len(dataset)), num_images, SEED)
    count = max(1, BATCH // num_views)
    with kept_random_states(), evaluating(backbone):
        for start in range(0, len(places), count):
            views: list[Tensor] = []
            for place in places[start : start + count]:
                with suppress(UnreadableImageError):
                    results = load(dict(dataset.get_data_info(place)))
                    drawn: list[Tensor] = []
                    for number in range(-(-num_views // 2)):  # two in each
                        key = SampleKey(place, SEED, number)
                        drawn += crop(dict(results, sample_idx=key))['img']
                    views += drawn[:num_views]
            if not views:
                continue
            yield named_outputs(backbone, normalize(model, views))
