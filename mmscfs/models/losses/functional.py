# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tensor functions that the losses and the health figures share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or unchanged if it is already wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def teacher_probabilities(
    logits: Tensor, temperature: float, center: Tensor | None = None
) -> Tensor:
    """Sharpen, and centre where asked, the teacher's outputs (Eq. 1).

    Args:
        logits (Tensor): Outputs of shape (..., K).
        temperature (float): The teacher's temperature, > 0.
        center (Tensor, optional): Subtracted before the softmax, broadcast
            to (..., K). Defaults to None: sharpening only.

    Returns:
        Tensor: Probabilities of shape (..., K), at least float32, without
        gradient.
    """
    logits = at_least_fp32(logits.detach())
    if center is not None:
        logits = logits - center
    return F.softmax(logits / temperature, dim=-1)


def student_log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return log P of Eq. 1 for outputs of shape (..., K), in >= float32."""
    return F.log_softmax(at_least_fp32(logits) / temperature, dim=-1)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the mean entropy, in nats, of distributions (..., K)."""
    return torch.special.entr(probabilities).sum(-1).mean()
