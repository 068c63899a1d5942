# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.runner import BaseLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmscfs.evaluation import class_ranks

from ..meeting import on_first_process
from ..resume.files import warning_if_full
from ..runner_access import unwrapped_model
from .feature_files import (
    FeatureWriter,
    lines_digest,
    read_features,
    weights_digest,
)
from .features import (
    Features,
    choose_backbone,
    dataset_of,
    extract_features,
    gather_rows,
    read_label,
)


class FeatureLoop(BaseLoop):
    """Evaluate the features of a backbone, without training it.

    A validation or test loop with two data loaders: a labeled bank, which
    the evaluation learns from, and the images that it is tested on.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The images to test on.
        evaluator (list): Must be empty: the loop is its own evaluator.
        bank_dataloader (DataLoader | dict): The images to learn from.
        layers (str | Sequence[str]): "last", "all", or names such as
            "layer3" (a ResNet's Res3). Defaults to "last".
        network (str, optional): "teacher", "student", or None: the teacher
            where there is one. Defaults to None.
        features (str, optional): Folder to keep the features in, and to take
            them from if they are there; not in a training. All processes
            have to see it. Defaults to None.

    Raises:
        ValueError: There is an evaluator, or ``features`` in a training.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: list,
        bank_dataloader: DataLoader | dict,
        layers: str | Sequence[str] = 'last',
        network: str | None = None,
        features: str | None = None,
    ) -> None:
        name = type(self).__name__
        if evaluator:
            raise ValueError(
                f'{name} measures by itself: set val_evaluator=[] or '
                'test_evaluator=[]'
            )
        # The training loop is built before its validation.
        if features and isinstance(runner._train_loop, BaseLoop):
            raise ValueError(
                f"val_cfg.features={features!r}: a training's features "
                'change; keep them in tests only (test_cfg)'
            )
        super().__init__(runner, dataloader)
        if isinstance(bank_dataloader, dict):
            bank_dataloader = runner.build_dataloader(
                bank_dataloader, seed=runner.seed
            )
        self.bank_dataloader: DataLoader = bank_dataloader
        self.layers = layers
        self.network = network
        self.features = Path(features) if features else None

    @property
    def mode(self) -> str:
        """Whether this is the runner's "val" or its "test" loop."""
        return 'test' if self.runner._test_loop is self else 'val'

    def run(self) -> dict[str, float]:
        """Extract the features and evaluate them.

        Raises:
            ValueError: See :func:`extract_features`,
                :meth:`check_classes` and the evaluation.
        """
        mode, runner = self.mode, self.runner
        runner.call_hook(f'before_{mode}')
        runner.call_hook(f'before_{mode}_epoch')
        metrics = self.measure()
        runner.call_hook(f'after_{mode}_epoch', metrics=metrics)
        runner.call_hook(f'after_{mode}')
        if is_main_process():
            with warning_if_full('The plot of the scores'):
                self.draw(metrics)
        return metrics

    def measure(self) -> dict[str, float]:
        """Extract the features and evaluate them."""
        bank = self.extract(self.bank_dataloader, 'bank')
        queries = self.extract(self.dataloader, 'queries')
        images = dataset_of(self.bank_dataloader)
        labels = gather_rows(bank.labels, len(images))
        self.check_classes(
            labels, gather_rows(queries.labels, len(self.dataloader.dataset))
        )
        return self.evaluate(bank, labels, queries)

    def extract(self, loader: DataLoader, what: str) -> Features:
        """Extract the features of "bank" or "queries", or read saved ones."""
        arguments = (self.runner, loader, what, self.layers, self.network)
        if self.features is None:
            return extract_features(*arguments, read=self.read_label)
        folder = self.features / what
        facts = self.facts(loader, what)
        if on_first_process(folder.exists):
            self.runner.logger.info(f'reading the features in {folder}')
        else:
            writer = FeatureWriter(folder, len(dataset_of(loader)))
            features = extract_features(
                *arguments, write=writer.write, read=self.read_label
            )
            writer.finish(features, facts)
            self.runner.logger.info(f'kept the features in {folder}')
        return read_features(folder, facts, self.layers)

    def read_label(self, image: Mapping, what: str) -> int | Sequence[int]:
        """Return the label of an image, given its entry in the data set."""
        return read_label(image, what)

    def facts(self, loader: DataLoader, what: str) -> dict:
        """Return what the features depend on, as plain values."""
        dataset = dataset_of(loader)
        model = unwrapped_model(self.runner)
        backbone = choose_backbone(model, self.network)
        images = (dataset.get_data_info(i) for i in range(len(dataset)))
        return dict(
            backbone=weights_digest(backbone),
            images=lines_digest(
                f'{image.get("img_path")} {self.read_label(image, what)}'
                for image in images
            ),
            pipeline=str(dataset.pipeline),
            normalisation=weights_digest(model.data_preprocessor),
        )

    def check_classes(self, bank_labels: Tensor, labels: Tensor) -> None:
        """Check that the whole bank has every class of all queries.

        Raises:
            ValueError: It lacks some.
        """
        lacking = sorted({*labels.tolist()} - {*bank_labels.tolist()})
        if lacking:
            raise ValueError(
                f'{len(lacking)} classes of the queries have no image in the '
                f'bank (labels {lacking[:5]}). Use the same data set for both '
                'and add the missing classes'
            )

    def evaluate(
        self, bank: Features, bank_labels: Tensor, queries: Features
    ) -> dict[str, float]:
        """Return the figures, in percent, that the features reach.

        Args:
            bank (Features): This process's part of the bank.
            bank_labels (Tensor): Labels of the whole bank, int64 (M,) or
                (M, K).
            queries (Features): This process's part of the queries.
        """
        raise NotImplementedError

    def draw(self, metrics: dict[str, float]) -> None:
        """Draw the figures into the work directory."""


def top_accuracies(
    batches: Iterable[tuple[Iterable[Tensor], Tensor]],
    settings: Sequence[float],
    num_classes: int,
    total: int,
) -> dict[float, dict[str, float]]:
    """Return "top1" and, of five classes or more, "top5" by setting, percent.

    ``batches`` has of this process's images the scores (B, K) by each
    setting, such as a number of neighbors, and the classes (B,); ``total`` is
    the number of images of all processes.
    """
    tops = (1, 5) if num_classes >= 5 else (1,)
    hits = torch.zeros(len(settings), len(tops), dtype=torch.int64)
    for scores, labels in batches:
        for row, score in zip(hits, scores, strict=True):
            ranks = class_ranks(score, labels)
            row += torch.tensor([int((ranks < top).sum()) for top in tops])
    all_reduce(hits)
    return {
        setting: {
            f'top{top}': 100 * count / total
            for top, count in zip(tops, row, strict=True)
        }
        for setting, row in zip(settings, hits.tolist(), strict=True)
    }


def name_metrics(
    found: Mapping[str, Mapping[float, Mapping[str, float]]],
    protocol: str,
    setting: str,
) -> dict[str, float]:
    """Name what :func:`top_accuracies` found by layer as it is logged.

    ``<protocol>/<layer>_<setting><value>_top1`` and so on; and of the last
    layer's best value ``<protocol>/top1`` and so on, and the value itself as
    ``<protocol>/<setting>``.
    """
    metrics = {
        f'{protocol}/{layer}_{setting}{value:g}_{name}': accuracy
        for layer, by_value in found.items()
        for value, accuracies in by_value.items()
        for name, accuracy in accuracies.items()
    }
    last = found[list(found)[-1]]
    best = max(last, key=lambda value: last[value]['top1'])
    for name, accuracy in last[best].items():
        metrics[f'{protocol}/{name}'] = accuracy
    return metrics | {f'{protocol}/{setting}': best}
