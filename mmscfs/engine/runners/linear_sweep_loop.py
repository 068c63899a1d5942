# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmpretrain.registry import LOOPS
from rich.progress import track
from torch import Tensor

from mmscfs.evaluation import (
    LinearClassifiers,
    check_training,
    class_ranks,
    train_linear,
)

from .feature_loop import FeatureLoop
from .features import Features

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
IMAGES = 1024  # that are classified at a time


@LOOPS.register_module()
class LinearSweepLoop(FeatureLoop):
    """Linear probing in minutes: features once, all learning rates at once.

    The features are those of centre crops, whatever the test pipeline makes
    them, without augmentation; so the figures are near the full protocol's,
    not equal to them. Logs ``linear/<layer>_lr<rate>_top1`` (and ``_top5``,
    with five classes or more) in percent, and of the last layer the best
    rate's as ``linear/top1``, with ``linear/top5`` and ``linear/lr``. As is
    usual, the best is chosen on the images that are tested on.

    Args:
        *args: Those of :class:`FeatureLoop`.
        learning_rates (Sequence[float]): For 256 images a batch. Defaults to
            ten from 0.001 to 30.
        epochs (int): Defaults to 100.
        batch_size (int): Of all processes together. Defaults to 1024.
        weight_decay (float): Defaults to 0.
        **kwargs: Those of :class:`FeatureLoop`.

    Raises:
        ValueError: A setting is out of its range, or see
            :class:`FeatureLoop`.
    """

    def __init__(
        self,
        *args: Any,
        learning_rates: Sequence[float] = RATES,
        epochs: int = 100,
        batch_size: int = 1024,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_training(learning_rates, epochs, batch_size, weight_decay)
        self.learning_rates = list(learning_rates)
        self.epochs = epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay

    def evaluate(
        self, bank: Features, bank_labels: Tensor, queries: Features
    ) -> dict[str, float]:
        """Return the accuracies of every layer and learning rate.

        Raises:
            RuntimeError: Every classifier diverged.
        """
        num_classes = 1 + int(bank_labels.max())
        metrics: dict[str, float] = {}
        for layer, features in bank.layers.items():
            classifiers = train_linear(
                features,
                bank.labels,
                num_classes,
                self.learning_rates,
                epochs=self.epochs,
                batch_size=self.batch_size,
                weight_decay=self.weight_decay,
                seed=self.runner.seed,
                device=next(self.runner.model.parameters()).device,
                track=partial(
                    track,
                    description=f'linear classifiers of {layer}',
                    disable=not is_main_process(),
                ),
            )
            accuracies = self.measure(
                classifiers, queries.layers[layer], queries.labels
            )
            best = max(accuracies, key=lambda rate: accuracies[rate][0])
            names = ('top1', 'top5')[: len(accuracies[best])]
            for rate, values in accuracies.items():
                for name, value in zip(names, values, strict=True):
                    metrics[f'linear/{layer}_lr{rate:g}_{name}'] = value
        # Those of the last layer.
        for name, value in zip(names, accuracies[best], strict=True):
            metrics[f'linear/{name}'] = value
        metrics['linear/lr'] = best
        return metrics

    def measure(
        self, classifiers: LinearClassifiers, features: Tensor, labels: Tensor
    ) -> dict[float, list[float]]:
        """Return top-1 and, of five classes or more, top-5 in percent.

        Args:
            classifiers (LinearClassifiers): One for each learning rate.
            features (Tensor): This process's features (Q, C).
            labels (Tensor): Their classes (Q,).

        Returns:
            dict[float, list[float]]: By learning rate, without those that
            diverged.

        Raises:
            RuntimeError: All of them did.
        """
        device = classifiers.weight.device
        tops = (1, 5) if classifiers.bias.shape[1] >= 5 else (1,)
        hits = torch.zeros(len(self.learning_rates), len(tops))
        for part, target in zip(
            features.split(IMAGES), labels.split(IMAGES), strict=True
        ):
            scores = classifiers.scores(part.to(device))
            for i, score in enumerate(scores):
                ranks = class_ranks(score, target.to(device))
                for j, top in enumerate(tops):
                    hits[i, j] += (ranks < top).sum().item()
        all_reduce(hits)
        accuracies = 100 * hits / len(self.dataloader.dataset)
        finite = classifiers.weight.flatten(1).isfinite().all(-1).tolist()
        found = {
            rate: values
            for rate, values, is_finite in zip(
                self.learning_rates, accuracies.tolist(), finite, strict=True
            )
            if is_finite
        }
        if not found:
            raise RuntimeError(
                f'learning_rates={self.learning_rates}: all diverged; add '
                'smaller ones'
            )
        return found
