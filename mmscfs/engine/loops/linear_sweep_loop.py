# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any

from mmpretrain.registry import LOOPS
from torch import Tensor

from mmscfs.evaluation import check_training, train_linear

from .feature_loop import FeatureLoop, name_metrics, top_accuracies
from .features import Features, progress

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
IMAGES = 1024  # that are classified at a time


@LOOPS.register_module()
class LinearSweepLoop(FeatureLoop):
    """Linear probing in minutes: features once, all learning rates at once.

    The features are those of center crops, whatever the test pipeline makes
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
        device = next(self.runner.model.parameters()).device
        found: dict[str, dict[float, dict[str, float]]] = {}
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
                device=device,
                track=progress(f'linear classifiers of {layer}'),
            )
            accuracies = top_accuracies(
                (
                    (classifiers.scores(part.to(device)), labels.to(device))
                    for part, labels in zip(
                        queries.layers[layer].split(IMAGES),
                        queries.labels.split(IMAGES),
                        strict=True,
                    )
                ),
                self.learning_rates,
                num_classes,
                len(self.dataloader.dataset),
            )
            finite = classifiers.weight.flatten(1).isfinite().all(-1).tolist()
            found[layer] = {
                rate: accuracies[rate]
                for rate, is_finite in zip(
                    self.learning_rates, finite, strict=True
                )
                if is_finite
            }
            if not found[layer]:
                raise RuntimeError(
                    f'learning_rates={self.learning_rates}: all diverged. Add '
                    'smaller ones'
                )
        return name_metrics(found, 'linear', 'lr')
