# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def weighted_knn(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    block: int = 1024,
) -> Tensor:
    """Class scores of the weighted k-NN classifier.

    Each of the k nearest features by cosine similarity votes for its class
    with weight exp(similarity / temperature), as in `Wu et al.
    <https://arxiv.org/abs/1805.01978>`_.

    Args:
        queries (Tensor): Features of shape (Q, C), of any length.
        bank (Tensor): Labelled features of shape (M, C).
        bank_labels (Tensor): Their classes, int64 of shape (M,).
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Defaults to 0.07.
        num_classes (int, optional): Defaults to one more than the largest
            label.
        block (int): Queries compared at a time. Defaults to 1024.

    Returns:
        Tensor: Scores of shape (Q, num_classes); the largest is the
        prediction.

    Raises:
        ValueError: k is not in [1, M], or the temperature not positive.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'k={k} must be at least 1 and at most the {len(bank)} features '
            'of the bank'
        )
    if temperature <= 0:
        raise ValueError(f'temperature={temperature} must be > 0')
    num_classes = num_classes or int(bank_labels.max()) + 1
    # exp(1 / 0.07) is beyond half precision.
    dtype = torch.promote_types(bank.dtype, torch.float32)
    bank = F.normalize(bank.to(dtype), dim=-1)
    scores = []
    for part in F.normalize(queries.to(dtype), dim=-1).split(block):
        similarity, index = (part @ bank.T).topk(k)
        votes = part.new_zeros(len(part), num_classes)
        votes.scatter_add_(
            1, bank_labels[index], (similarity / temperature).exp()
        )
        scores.append(votes)
    return torch.cat(scores)


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
    hits = (scores.topk(k).indices == labels[:, None]).any(-1)
    return 100 * hits.double().mean().item()
