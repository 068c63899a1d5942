# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import torch
from torch import Tensor

from .neighbors import find_neighbors


@torch.no_grad()
def weighted_knn(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    **kwargs: Any,
) -> Tensor:
    """Class scores of the weighted k-NN classifier.

    Each of the k nearest features by cosine similarity votes for its class
    with weight exp(similarity / temperature), as in `Wu et al.
    <https://arxiv.org/abs/1805.01978>`_.

    Args:
        queries (Tensor): Features of shape (Q, C), of any length.
        bank (Tensor): Labeled features of shape (M, C).
        bank_labels (Tensor): Their classes, int64 of shape (M,).
        k (int): Number of neighbors. Defaults to 20.
        temperature (float): Defaults to 0.07.
        num_classes (int, optional): Defaults to one more than the largest
            label.
        **kwargs: Those of :func:`find_neighbors`.

    Returns:
        Tensor: Scores of shape (Q, num_classes), float64; the largest is the
        prediction, the first of equals as :func:`class_ranks` has it.

    Raises:
        ValueError: As :func:`find_neighbors` and :func:`vote`.
    """
    num_classes = num_classes or int(bank_labels.max()) + 1
    found = find_neighbors(queries, bank, k, **kwargs)
    labels = bank_labels.to(found.index.device)[found.index]
    return vote(found.similarity, labels, num_classes, temperature)


def vote(
    similarity: Tensor,
    labels: Tensor,
    num_classes: int,
    temperature: float = 0.07,
) -> Tensor:
    """Let neighbors vote for their classes.

    Args:
        similarity (Tensor): Cosines of the neighbors, (Q, k).
        labels (Tensor): Their classes, int64 of shape (Q, k).
        num_classes (int): Number of classes.
        temperature (float): Defaults to 0.07.

    Returns:
        Tensor: Sums of exp(similarity / temperature) by class, float64 of
        shape (Q, num_classes).

    Raises:
        ValueError: As :func:`check_temperature`.
    """
    check_temperature(temperature)
    weights = (similarity.double() / temperature).exp()
    scores = weights.new_zeros(len(weights), num_classes)
    return scores.scatter_add_(1, labels, weights)


def check_temperature(temperature: float) -> None:
    """Check the temperature of votes.

    Raises:
        ValueError: It is below 0.002, where a vote would exceed what float64
            holds.
    """
    if not temperature >= 0.002:
        raise ValueError(f'temperature={temperature} must be >= 0.002')


def class_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the true one.

    Scores are compared as float32 parts of the row's largest, so that the
    order in which they were summed does not matter; of equals the lower class
    comes first.

    Args:
        scores (Tensor): Shape (Q, num_classes).
        labels (Tensor): True classes, int64 of shape (Q,).

    Returns:
        Tensor: int64 of shape (Q,); 0 is a right prediction. Scores that are
        not numbers come before.
    """
    scores = scores.double()
    largest = scores.abs().amax(-1, keepdim=True).clamp_min(1e-300)
    scores = (scores / largest).float()
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    after = (scores < own) | (scores == own) & (classes >= labels[:, None])
    # Neither is true of what is not a number.
    return (~after).sum(-1)


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of rows whose label is among the k largest scores, in percent.

    Args:
        scores (Tensor): Shape (Q, num_classes).
        labels (Tensor): int64 of shape (Q,).
        k (int): Defaults to 1.

    Raises:
        ValueError: k is not in [1, num_classes].
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(
            f'k={k} must be at least 1 and at most the {scores.shape[-1]} '
            'classes'
        )
    hits = class_ranks(scores, labels) < k
    return 100 * hits.double().mean().item()
