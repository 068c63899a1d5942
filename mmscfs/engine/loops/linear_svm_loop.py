# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmpretrain.registry import LOOPS
from torch import Tensor

from mmscfs.evaluation import (
    SVM_COSTS,
    check_examples,
    check_svm,
    svm_average_precision,
)

from .feature_loop import FeatureLoop
from .features import (
    Features,
    dataset_of,
    gather_rows,
    progress,
    read_labels,
)


@LOOPS.register_module()
class LinearSVMLoop(FeatureLoop):
    """Classification of images with several labels, by an SVM a class.

    Of data sets such as mmpretrain's ``VOC``. An image that shows a class
    only as "difficult" is left out for this class, in training and test. The
    classes are shared out over the processes. Logs ``svm/<layer>_mAP`` in
    percent, and of the last layer ``svm/mAP`` and ``svm/AP_<class>``; see
    :func:`svm_average_precision`.

    Args:
        *args: Those of :class:`FeatureLoop`.
        costs (Sequence[float]): To choose from for each class, by
            cross-validation. Defaults to powers of ten from 0.001 to 100.
        folds (int): Of the cross-validation. Defaults to 3.
        **kwargs: Those of :class:`FeatureLoop`.

    Raises:
        ValueError: A setting is out of its range, the data sets' images do
            not have several labels, their classes differ or have too few
            images, or see :class:`FeatureLoop`.
    """

    def __init__(
        self,
        *args: Any,
        costs: Sequence[float] = SVM_COSTS,
        folds: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_svm(costs, folds)
        self.costs = list(costs)
        self.folds = folds
        loaders = self.bank_dataloader, self.dataloader
        datasets = [dataset_of(loader) for loader in loaders]
        names = [list(d.metainfo.get('classes') or ()) for d in datasets]
        if not names[0] or names[0] != names[1]:
            raise ValueError(
                f'LinearSVMLoop: the bank has the classes {names[0]}, the '
                f'queries {names[1]}; both need the same: use data sets of '
                "type 'VOC', or metainfo=dict(classes=[...])"
            )
        self.classes = names[0]
        # From the annotations, before the features are made.
        self.check_classes(
            *(
                read_labels(d, range(len(d)), what, self.read_label)
                for d, what in zip(datasets, ('bank', 'queries'), strict=True)
            )
        )

    def read_label(self, image: Mapping, what: str) -> list[int]:
        """Return 1, -1 or, for "difficult" alone, 0 for each class.

        Raises:
            ValueError: The data set gives no list of labels.
        """
        labels = image.get('gt_label')
        if not isinstance(labels, Sequence):
            raise ValueError(
                f'an image of the {what} has the label {labels!r} '
                f'({image.get("img_path", "path unknown")}): LinearSVMLoop '
                "needs a list for each image, as from a data set of type 'VOC'"
            )
        row = [-1] * len(self.classes)
        for label in image.get('gt_label_difficult') or ():
            row[label] = 0
        for label in labels:
            row[label] = 1
        return row

    def check_classes(self, bank_labels: Tensor, labels: Tensor) -> None:
        """Check that each of K classes has images with and without it.

        In the whole bank (M, K), and among all queries (Q, K).

        Raises:
            ValueError: One has too few.
        """
        for values, least, what in (
            (bank_labels, self.folds, 'bank'),
            (labels, 1, 'queries'),
        ):
            for name, column in zip(self.classes, values.T, strict=True):
                check_examples(column, least, f'class {name!r} of the {what}')

    def evaluate(
        self, bank: Features, bank_labels: Tensor, queries: Features
    ) -> dict[str, float]:
        """Return the average precisions of every layer."""
        total = len(self.dataloader.dataset)
        query_labels = gather_rows(queries.labels, total)
        metrics: dict[str, float] = {}
        for layer, part in bank.layers.items():
            features = gather_rows(part, len(bank_labels))
            query_features = gather_rows(queries.layers[layer], total)
            found = torch.zeros(2, len(self.classes), dtype=torch.float64)
            own = range(get_rank(), len(self.classes), get_world_size())
            for i in progress(f'SVMs of {layer}')(own):
                precision_and_cost = svm_average_precision(
                    features,
                    bank_labels[:, i],
                    query_features,
                    query_labels[:, i],
                    self.costs,
                    self.folds,
                )
                found[:, i] = torch.tensor(
                    precision_and_cost, dtype=found.dtype
                )
            all_reduce(found)  # the others' are 0
            precisions = 100 * found[0]
            metrics[f'svm/{layer}_mAP'] = precisions.mean().item()
            costs = zip(self.classes, found[1].tolist(), strict=True)
            text = ', '.join(f'{name} {cost:g}' for name, cost in costs)
            self.runner.logger.info(f'costs of the SVMs of {layer}: {text}')
        # Those of the last layer.
        metrics['svm/mAP'] = metrics[f'svm/{layer}_mAP']
        for name, value in zip(self.classes, precisions.tolist(), strict=True):
            metrics[f'svm/AP_{name}'] = value
        return metrics
