# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.registry import LOOPS
from torch import Tensor

from mmscfs.evaluation import (
    Neighbors,
    check_temperature,
    find_neighbors,
    resolve_precision,
    vote,
)
from mmscfs.results import read_scalars, stitch
from mmscfs.visualization import (
    draw_knn_by_epoch,
    draw_knn_by_layer,
    top1_by_layer,
)

from .feature_loop import FeatureLoop, name_metrics, top_accuracies
from .features import Features, dataset_of, progress

QUERIES = 4096  # that vote at a time


@LOOPS.register_module()
class KNNLoop(FeatureLoop):
    """Weighted k-NN classification, as validation or test loop.

    As `Wu et al. <https://arxiv.org/abs/1805.01978>`_ and the releases of
    DINO and SCFS: L2-normalized features, votes of exp(similarity /
    temperature). Logs ``knn/<layer>_k<k>_top1`` (and ``_top5``, with five
    classes or more) in percent, and of the last layer the best over k as
    ``knn/top1``, with ``knn/top5`` and ``knn/k`` of that k. A validation
    draws ``knn.png`` into the work directory, a test of several layers
    ``knn_layers.png`` (the paper's Fig. 4).

    Args:
        *args: Those of :class:`FeatureLoop`.
        ks (Sequence[int]): Numbers of neighbors. Defaults to (10, 20, 100,
            200).
        temperature (float): Defaults to 0.07.
        precision (str): Of the products that choose the candidates for
            neighbors. See :func:`find_neighbors`. Defaults to "auto".
        **kwargs: Those of :class:`FeatureLoop`.

    Raises:
        ValueError: A k is not in [1, size of the bank], the temperature or
            the precision is not valid, or see :class:`FeatureLoop`.
    """

    def __init__(
        self,
        *args: Any,
        ks: Sequence[int] = (10, 20, 100, 200),
        temperature: float = 0.07,
        precision: str = 'auto',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        size = len(dataset_of(self.bank_dataloader))
        if not ks or not all(1 <= k <= size for k in ks):
            raise ValueError(
                f'KNNLoop: ks={list(ks)} must be at least 1 and at most the '
                f'{size} images of the bank: set val_cfg.ks or test_cfg.ks'
            )
        check_temperature(temperature)
        self.ks = sorted(ks)
        self.temperature = temperature
        device = next(self.runner.model.parameters()).device
        self.precision = resolve_precision(precision, device)

    def evaluate(
        self, bank: Features, bank_labels: Tensor, queries: Features
    ) -> dict[str, float]:
        """Return the accuracies of every layer and k."""
        device = next(self.runner.model.parameters()).device
        num_classes = int(bank_labels.max()) + 1
        accuracies = {}
        for layer, features in queries.layers.items():
            found = find_neighbors(
                features.to(device),
                bank.layers[layer],
                self.ks[-1],
                self.precision,
                progress(f'neighbors by {layer}'),
                bank.index,
            )
            accuracies[layer] = top_accuracies(
                self.votes(found, bank_labels, queries.labels, num_classes),
                self.ks,
                num_classes,
                len(self.dataloader.dataset),
            )
        return name_metrics(accuracies, 'knn', 'k')

    def votes(
        self,
        found: Neighbors,
        bank_labels: Tensor,
        labels: Tensor,
        num_classes: int,
    ) -> Iterator[tuple[Iterator[Tensor], Tensor]]:
        """Yield, of B queries at a time, scores (B, K) by k, and classes.

        Of this process's Q queries are given the neighbors, (Q, largest k),
        and the classes (Q,).
        """
        for start in range(0, len(labels), QUERIES):
            part = slice(start, start + QUERIES)
            near = found.similarity[part].cpu()
            voters = bank_labels[found.index[part].cpu()]
            scores = (
                vote(near[:, :k], voters[:, :k], num_classes, self.temperature)
                for k in self.ks
            )
            yield scores, labels[part]

    def draw(self, metrics: dict[str, float]) -> None:
        """Draw accuracy by epoch (validation) or by layer (test)."""
        runner = self.runner
        folder = Path(runner.work_dir)
        if self.mode == 'test':
            if len(top1_by_layer(metrics)) > 1:
                draw_knn_by_layer(metrics, folder / 'knn_layers.png')
            return
        # The logs have what was measured before the run was resumed.
        logs = sorted(folder.glob('*/vis_data/scalars.json'))
        lines = stitch([read_scalars(log)[0] for log in logs])
        history = {
            int(line['step']): line
            for line in lines
            if 'knn/k' in line and 'step' in line
        }
        history[runner.epoch] = metrics
        draw_knn_by_epoch(history, folder / 'knn.png')
