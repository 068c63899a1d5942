# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.evaluation import view_retrieval

from ..loops.features import pool
from ..runner_access import unwrapped_model
from .recurring_hook import RecurringHook, view_outputs

KS = (1, 5)


@HOOKS.register_module()
class ViewRecallHook(RecurringHook):
    """Log how often a crop of an image finds the other crop of that image.

    A figure of quality that needs no labels: two random global crops of each
    of some training images, always the same, go through the teacher's
    backbone, and every first crop ranks all second ones by the cosine
    similarity of their pooled features, and vice versa. The log has the
    percentage whose own image is the first, or among the first five
    (``view_recall/top1``, ``view_recall/top5``); chance is 100 / N and
    500 / N. Measured before the first step, every few epochs, and after the
    last one. Compare it within a run: images and crops decide its level.

    The training goes on as it would without the hook, to the bit.

    Args:
        num_images (int): Training images N, drawn with one seed. Defaults to
            500.
        **kwargs: ``interval`` and ``iter_interval`` of
            :class:`RecurringHook`.

    Raises:
        ValueError: A setting is outside its range, or the pipeline has no
            MultiCrop.

    Example:
        >>> default_hooks = dict(view_recall=dict(type='ViewRecallHook'))
    """

    least_images = max(KS)

    def __init__(self, num_images: int = 500, **kwargs: Any) -> None:
        super().__init__(num_images, **kwargs)

    @master_only
    def look(self, runner: Runner, step: int, epoch: int) -> None:
        """Measure and log, as of an epoch, or of an iteration without them."""
        model = unwrapped_model(runner)
        dataset = runner.train_dataloader.dataset
        features = [
            pool([*outputs.values()][-1]).float().unflatten(0, (-1, 2))
            for outputs in view_outputs(model, dataset, self.num_images, 2)
        ]
        images = sum(map(len, features))
        if images < max(KS):
            return  # too few to rank
        first, second = torch.cat(features).unbind(1)
        ways = (
            view_retrieval(first, second, KS),
            view_retrieval(second, first, KS),
        )
        figures = {
            f'view_recall/top{k}': sum(way[k] for way in ways) / 2 for k in KS
        }
        self.log(runner, figures, step, epoch)
        runner.logger.info(
            f'View recall of {images} images: '
            + ', '.join(
                f'top-{k} {figures[f"view_recall/top{k}"]:.1f} % (chance '
                f'{100 * k / images:.1f})'
                for k in KS
            )
        )
