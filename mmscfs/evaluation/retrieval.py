# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-6  # of a cosine similarity in float32


@torch.no_grad()
def view_retrieval(
    first: Tensor,
    second: Tensor,
    ks: Sequence[int] = (1, 5),
    block: int = 1024,
) -> dict[int, float]:
    """How often a view finds the other view of its own image.

    Row i of ``first`` and of ``second`` are two views of image i; each first
    view ranks all second views by cosine similarity. Among equals its own
    image comes last, so that constant features score nothing; features that
    are not finite find nothing either.

    Args:
        first (Tensor): Features of shape (Q, C).
        second (Tensor): Features of shape (Q, C).
        ks (Sequence[int]): Ranks that count as found. Defaults to (1, 5).
        block (int): Queries compared at a time. Defaults to 1024.

    Returns:
        dict[int, float]: recall@k in percent for each k.

    Raises:
        ValueError: The shapes differ, or a k is not in [1, Q].
    """
    if first.shape != second.shape:
        raise ValueError(
            'view_retrieval needs two features an image, got '
            f'{tuple(first.shape)} and {tuple(second.shape)}'
        )
    if not all(1 <= k <= len(second) for k in ks):
        raise ValueError(
            f'ks={tuple(ks)} must be at least 1 and at most the number of '
            f'images, {len(second)}'
        )
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    ranks = []
    for start in range(0, len(first), block):
        similarity = first[start : start + block] @ second.T
        own = similarity.diagonal(offset=start)[:, None]
        # Counts the view itself, so the best rank is 1. Equal products may
        # differ by rounding, and nothing is less than what is not a number.
        ranks.append((~(similarity < own - ROUNDING)).sum(-1))
    rank = torch.cat(ranks)
    return {k: 100 * (rank <= k).double().mean().item() for k in ks}
