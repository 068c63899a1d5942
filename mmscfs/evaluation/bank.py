# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A bank of features, passed over once, and in blocks on a device."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import HALF, PRECISIONS

# Numbers of float64 that a core of a CPU computes with at a time: few, so that
# they stay in its cache.
CACHED = 1 << 16
# Features whose mean is taken for that of the bank.
AVERAGED = 256


class Bank(NamedTuple):
    """A bank, and what one pass over it tells.

    Attributes:
        features (Tensor): Shape (M, C).
        norms (Tensor): Their lengths, float64 (M,), on the device that
            computes; none is 0.
        centre (Tensor): About the mean of its features at length 1, float32
            (C,), on this device; not longer than 1.
        residual (Tensor): How far at most a feature of length 1 is from what
            the first precision makes of it; a number.
        block (int): How many to take at a time.
    """

    features: Tensor
    norms: Tensor
    centre: Tensor
    residual: Tensor
    block: int

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (place of the first, features, lengths), on the device."""
        start = 0
        parts = self.features.split(self.block)
        for part in on_device(parts, self.norms.device):
            yield start, part, self.norms[start : start + len(part)]
            start += len(part)


def measure_bank(
    features: Tensor, precision: str, block: int, device: torch.device
) -> Bank:
    """Pass over a bank once.

    Raises:
        ValueError: A feature is not finite, or see :func:`check_shape`.
    """
    check_shape(features, 'bank')
    if device.type == 'cuda' and features.device != device:
        # Where there is room it is sent once, not for each block of queries.
        free, _ = torch.cuda.mem_get_info(device)
        features = features.to(device if 2 * features.nbytes < free else 'cpu')
    norms, residual = [], torch.zeros((), device=device)
    for part in on_device(features.split(block), device):
        norms.append(row_norms(part))
        if precision in HALF and device.type != 'cpu':
            exact = unit_fp32(part, norms[-1])
            coarse = exact.to(PRECISIONS[precision]).float()
            largest = (exact - coarse).norm(dim=-1).max()
            residual = torch.maximum(residual, largest)
    norms = torch.cat(norms)
    check_finite(norms, 'bank')
    some = features[:: -(-len(features) // AVERAGED)].to(device)
    centre = unit(some).mean(0).float()
    return Bank(features, norms, centre, residual, block)


def check_shape(features: Tensor, name: str) -> None:
    """Check that features are of shape (N, C), neither of them 0.

    Raises:
        ValueError: They are not.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f'{name}: features of shape {tuple(features.shape)} must be '
            '(N, C), at least one of each'
        )


def check_finite(norms: Tensor, name: str) -> None:
    """Check that features are finite, by their lengths (N,).

    Raises:
        ValueError: They are not.
    """
    bad = int((~norms.isfinite()).sum())
    if bad:
        raise ValueError(
            f'{name}: {bad} of {len(norms)} features are not finite (NaN '
            'or infinite): the network has diverged, or was run in a '
            'precision whose range it exceeds'
        )


def unit(features: Tensor) -> Tensor:
    """Return features (N, C) scaled to length 1, in float64."""
    return features.double() / row_norms(features)[:, None]


def row_norms(features: Tensor) -> Tensor:
    """Return the lengths (N,) of features in float64; none is 0."""
    if features.device.type != 'cpu':
        norms = torch.linalg.vector_norm(features.double(), dim=-1)
        return norms.clamp_min(1e-30)
    channels = features.shape[1]
    size = max(1, CACHED // channels) * torch.get_num_threads()
    # One place for all: made anew, it would not be in the cache.
    exact = torch.empty(size, channels, dtype=torch.float64)
    norms = [
        torch.linalg.vector_norm(exact[: len(part)].copy_(part), dim=-1)
        for part in features.split(size)
    ]
    return torch.cat(norms).clamp_min(1e-30)


def unit_fp32(features: Tensor, norms: Tensor) -> Tensor:
    """Return features (M, C) scaled by their lengths (M,), in float32."""
    return features.float() / norms.float()[:, None]


def on_device(
    parts: Iterable[Tensor], device: torch.device
) -> Iterator[Tensor]:
    """Yield tensors, the first of them the longest, on a device.

    A GPU receives the next two while it computes. What is yielded holds until
    the next but one is asked for.
    """
    stream: torch.cuda.Stream | None = None
    slots: list[_Slot] = []
    for i, part in enumerate(parts):
        if device.type != 'cuda' or part.device.type != 'cpu':
            yield part.to(device)
            continue
        if stream is None:
            stream = torch.cuda.Stream(device)
            slots = [_Slot(part, device) for _ in range(2)]
        slot, computing = slots[i % 2], torch.cuda.current_stream(device)
        received = slot.send(part, stream)
        computing.wait_event(slot.sent)
        yield received
        slot.used.record(computing)


class _Slot:
    """Pinned memory, and memory of a GPU that is filled from there.

    Args:
        like (Tensor): The longest of the tensors to come.
        device (torch.device): The GPU.
    """

    def __init__(self, like: Tensor, device: torch.device) -> None:
        self.pinned = torch.empty_like(like, pin_memory=True)
        self.memory = torch.empty_like(like, device=device)
        # Events that are not yet recorded make nothing wait.
        self.sent, self.used = torch.cuda.Event(), torch.cuda.Event()
        # Memory may be another computation's until here.
        self.used.record(torch.cuda.current_stream(device))

    def send(self, part: Tensor, stream: torch.cuda.Stream) -> Tensor:
        """Send a tensor once the last is used; only pinning it takes time."""
        self.sent.synchronize()
        self.pinned[: len(part)].copy_(part)
        received = self.memory[: len(part)]
        with torch.cuda.stream(stream):
            stream.wait_event(self.used)
            received.copy_(self.pinned[: len(part)], non_blocking=True)
            self.sent.record(stream)
        return received
