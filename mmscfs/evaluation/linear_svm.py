# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Classification by one linear SVM a class, of images with several labels.

A label is 1 where an image shows the class, -1 where it does not, and 0 where
it counts as neither, as VOC's lists of each class have it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

SVM_COSTS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


def svm_average_precision(
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    costs: Sequence[float] = SVM_COSTS,
    folds: int = 3,
) -> tuple[float, float]:
    """Train a linear SVM for one class, and test it.

    As `Goyal et al. <https://arxiv.org/abs/1905.01235>`_: L2-normalized
    features, the squared hinge loss with positives counting twice, L2
    regularization, and the cost that has the best mean average precision in a
    cross-validation of consecutive folds with as large a share of positives in
    each; of equals the smallest. Images labeled 0 are left out
    of all of it.

    Args:
        features (Tensor): To learn from, (N, C), of any length.
        labels (Tensor): Their labels, 1, -1 or 0, of shape (N,).
        queries (Tensor): To test on, (Q, C).
        query_labels (Tensor): Their labels, (Q,).
        costs (Sequence[float]): Weights of the errors to choose from.
            Defaults to powers of ten from 0.001 to 100.
        folds (int): Of the cross-validation. Defaults to 3.

    Returns:
        tuple[float, float]: The average precision, in [0, 1], and the cost.

    Raises:
        ValueError: As :func:`check_svm` and :func:`check_examples`.
    """
    from sklearn.model_selection import GridSearchCV

    check_svm(costs, folds)
    check_examples(labels, folds, 'labels')
    check_examples(query_labels, 1, 'query_labels')
    features, labels = _known(features, labels)
    queries, query_labels = _known(queries, query_labels)
    # Of equals the first; then trained on all the features.
    search = GridSearchCV(
        build_svm(),
        {'C': sorted(costs)},
        scoring='average_precision',
        cv=folds,
    ).fit(features, labels)
    scores = search.decision_function(queries)
    precision = average_precision(scores, query_labels > 0)
    return precision, search.best_params_['C']


def build_svm(cost: float = 1.0) -> 'LinearSVC':
    """Return an untrained SVM for labels of 1 and -1.

    It minimizes ``|w|^2 / 2 + cost * sum of c max(0, 1 - y (w x + b))^2``
    over the images x of label y, c = 2 for the positives and 1 for the
    others; b is regularized as w is.
    """
    from sklearn.svm import LinearSVC  # slow, and other runs do without

    return LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},
        dual=True,
        max_iter=2000,
        random_state=0,  # of the order of the images in training
    )


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the interpolated precision-recall curve.

    At each recall counts the best precision of this or a higher recall, as in
    VOC since 2010 and in the release of Goyal et al. Equal scores are taken
    together.

    Args:
        scores (ndarray): The larger, the surer; shape (N,).
        positive (ndarray): Which are right, bool of shape (N,); one or more.
    """
    from sklearn.metrics import precision_recall_curve

    # From recall 1 to 0.
    precision, recall, _ = precision_recall_curve(positive, scores)
    best = np.maximum.accumulate(precision)
    return float(-(np.diff(recall) * best[:-1]).sum())


def check_svm(costs: Sequence[float], folds: int) -> None:
    """Check the settings of the SVMs.

    Raises:
        ValueError: One is out of its range.
    """
    if not costs or not all(cost > 0 for cost in costs):
        raise ValueError(f'costs={list(costs)} must be one or more, each > 0')
    if folds < 2:
        raise ValueError(f'folds={folds} must be at least 2')


def check_examples(labels: Tensor, least: int, name: str) -> None:
    """Check that a class has examples.

    Args:
        labels (Tensor): 1, -1 or 0, of shape (N,).
        least (int): How many images with and without it there must be.
        name (str): What to call them.

    Raises:
        ValueError: There are fewer.
    """
    for value, word in ((1, 'with'), (-1, 'without')):
        count = int((labels == value).sum())
        if count < least:
            raise ValueError(
                f'{name}: {count} of {len(labels)} images are {word} the '
                f'class, and an SVM needs {least} or more: complete the data '
                'set, or leave the class out by metainfo=dict(classes=[...])'
            )


def _known(features: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return features of length 1 and labels, without those labeled 0."""
    known = labels != 0
    features = F.normalize(features[known].double(), dim=-1)
    return features.numpy(), labels[known].numpy()
