# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cross_entropy import at_least_fp32


class ConsistencyLoss(nn.Module):
    r"""Consistency term of `CO2 <https://arxiv.org/abs/2010.02217>`_.

    Contrastive learning calls every key of its queue equally negative. Here
    the positive key says how similar each of them is to the image, and the
    query learns to agree:

    .. math::

        Q(i) &= \mathrm{softmax}_i(q \cdot n_i / \tau), \quad
        P(i) = \mathrm{softmax}_i(p \cdot n_i / \tau) \\
        L &= \tfrac{\alpha}{2} (KL(P \| Q) + KL(Q \| P))

    for a query q, its positive key p and the negatives n of the queue; the
    positive is in neither distribution. P is a pseudo-label, so the gradient
    flows through the query alone.

    Any algorithm that has a queue can add it, with its own unit vectors and
    the queue as its contrastive loss reads it, before the keys enter::

        self.consistency = MODELS.build(dict(type='ConsistencyLoss'))
        losses['loss_consistency'] = self.consistency(q, k, queue)

    Args:
        weight (float): Weight alpha of the term, which the paper sets by how
            strongly the contrastive loss pulls: 0.3 beside MoCo v2, whose
            temperature is 0.2, and 10 beside MoCo v1 with 0.07. 0 leaves the
            algorithm as it is. Defaults to 0.3.
        temperature (float): Temperature tau of both distributions: lower
            ones ask for agreement on the nearest negatives alone. The paper
            has 0.05 beside MoCo v2 and 0.04 beside MoCo v1. Defaults to
            0.05.

    Raises:
        ValueError: The weight is negative, or the temperature not positive.

    Example:
        >>> query, key = torch.eye(8)[:4], torch.eye(8)[4:]
        >>> queue = F.normalize(torch.ones(8, 100), dim=0)  # all alike
        >>> ConsistencyLoss()(query, key, queue)
        tensor(0.)
    """

    def __init__(self, weight: float = 0.3, temperature: float = 0.05) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f'ConsistencyLoss: weight={weight} must be >= 0')
        if not temperature > 0:
            raise ValueError(
                f'ConsistencyLoss: temperature={temperature} must be > 0'
            )
        self.weight = weight
        self.temperature = temperature

    def forward(self, query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
        """Return the weighted term, the mean over the batch, in nats.

        Args:
            query (Tensor): Unit vectors, shape (B, C).
            key (Tensor): Unit vectors of the same images, shape (B, C); no
                gradient flows into them.
            queue (Tensor): Unit vectors of other images, shape (C, K); no
                gradient either. The backward pass reads it: where keys
                enter it in place before, give a clone.

        Raises:
            ValueError: The shapes do not fit together.
        """
        if (
            query.ndim != 2
            or query.shape != key.shape
            or queue.ndim != 2
            or query.shape[1] != queue.shape[0]
        ):
            raise ValueError(
                'ConsistencyLoss needs query (B, C), key (B, C) and queue '
                f'(C, K), got {tuple(query.shape)}, {tuple(key.shape)} and '
                f'{tuple(queue.shape)}'
            )
        log_q = self.log_probabilities(query, queue)
        log_p = self.log_probabilities(key.detach(), queue)
        # KL(P||Q) + KL(Q||P) in one sum without a negative term.
        divergence = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
        return self.weight / 2 * divergence.mean()

    def log_probabilities(self, features: Tensor, queue: Tensor) -> Tensor:
        """Return log P or log Q over the queue, (B, K), in >= float32.

        Args:
            features (Tensor): Unit vectors, shape (B, C).
            queue (Tensor): Unit vectors, shape (C, K).
        """
        # In bf16 a logit would be off by a tenth: 2^-8 over the temperature.
        with torch.autocast(features.device.type, enabled=False):
            similarities = at_least_fp32(features) @ at_least_fp32(
                queue.detach()
            )
            return F.log_softmax(similarities / self.temperature, dim=-1)
