# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Linear classifiers on fixed features, one for each learning rate."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class LinearClassifiers(NamedTuple):
    """As many linear classifiers as learning rates."""

    weight: Tensor  #: Shape (L, K, C).
    bias: Tensor  #: Shape (L, K).

    def scores(self, features: Tensor) -> Tensor:
        """Return the logits (L, B, K) of features (B, C)."""
        return features @ self.weight.mT + self.bias[:, None]


@torch.no_grad()
def train_linear(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int = 100,
    batch_size: int = 1024,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
    device: torch.device | str = 'cpu',
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> LinearClassifiers:
    """Train a softmax classifier at each learning rate, all at once.

    SGD with momentum on the cross-entropy, the learning rate following a
    cosine to 0 over all iterations; weights start as normal numbers of
    standard deviation 0.01, the same for every learning rate, biases at 0. As
    the linear probing of the DINO release, but on features that were made
    once. Processes share the work: each takes its part of every batch from
    its own features, so the order of the images, and with it the last digit
    of the result, depends on their number.

    Args:
        features (Tensor): This process's features (N, C); they may lie on
            another device or in a memory-mapped file.
        labels (Tensor): Their classes, int64 of shape (N,).
        num_classes (int): Number of classes K.
        learning_rates (Sequence[float]): L rates for 256 images; each is
            multiplied by batch_size / 256.
        epochs (int): Defaults to 100.
        batch_size (int): Of all processes together. Defaults to 1024.
        momentum (float): Defaults to 0.9.
        weight_decay (float): Defaults to 0.
        seed (int): Of weights and order. Defaults to 0.
        device (torch.device | str): Where to compute. Defaults to "cpu".
        track (Callable): Wraps the epochs, for a progress bar. Defaults to
            ``iter``.

    Returns:
        LinearClassifiers: On ``device``. One that diverged is not finite.

    Raises:
        ValueError: As :func:`check_training`.
    """
    check_training(learning_rates, epochs, batch_size, weight_decay)
    world, rank = 1, 0
    count = torch.tensor(len(features), device=device)
    if dist.is_initialized():
        world, rank = dist.get_world_size(), dist.get_rank()
        dist.all_reduce(count, dist.ReduceOp.MIN)
    own_batch = min(max(1, batch_size // world), int(count))
    steps = int(count) // own_batch
    rates = torch.tensor(learning_rates, device=device)
    rates = rates * (own_batch * world / 256)
    generator = torch.Generator().manual_seed(seed)
    shape = (num_classes, features.shape[1])
    weight = 0.01 * torch.randn(shape, generator=generator).to(device)
    weight = weight.expand(len(rates), *shape).clone()
    classifiers = LinearClassifiers(
        weight, weight.new_zeros(len(rates), num_classes)
    )
    velocity = [torch.zeros_like(part) for part in classifiers]
    generator.manual_seed(seed + 1 + rank)
    for epoch in track(range(epochs)):
        order = torch.randperm(len(features), generator=generator)
        for step in range(steps):
            chosen = order[step * own_batch : (step + 1) * own_batch]
            chosen = chosen.to(features.device)
            inputs = features[chosen].to(device).float()
            targets = labels[chosen.to(labels.device)].to(device)
            # Of each classifier's mean cross-entropy.
            error = F.softmax(classifiers.scores(inputs), dim=-1)
            error[:, torch.arange(own_batch, device=device), targets] -= 1
            error /= own_batch
            gradients = error.mT @ inputs, error.sum(1)
            progress = (epoch * steps + step) / (epochs * steps)
            factor = 0.5 * (1 + math.cos(math.pi * progress))
            for part, gradient, speed in zip(
                classifiers, gradients, velocity, strict=True
            ):
                if world > 1:
                    dist.all_reduce(gradient)
                    gradient /= world
                gradient += weight_decay * part
                speed.mul_(momentum).add_(gradient)
                rate = (factor * rates).view(-1, *[1] * (part.ndim - 1))
                part.sub_(rate * speed)
    return classifiers


def check_training(
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
    weight_decay: float,
) -> None:
    """Check the settings of a training.

    Raises:
        ValueError: One is out of its range.
    """
    for name, value in (('epochs', epochs), ('batch_size', batch_size)):
        if value < 1:
            raise ValueError(f'{name}={value} must be at least 1')
    if not learning_rates or not all(rate > 0 for rate in learning_rates):
        raise ValueError(
            f'learning_rates={list(learning_rates)} must be one or more, '
            'each > 0'
        )
    if not weight_decay >= 0:
        raise ValueError(f'weight_decay={weight_decay} must be >= 0')
