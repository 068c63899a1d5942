# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The precisions of a search's fast pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mmscfs.compatibility import has_fast_bf16

# A query that one leaves open goes to the next.
PRECISIONS = {
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
    'fp32': torch.float32,
    'fp64': torch.float64,
}
HALF = ('fp16', 'bf16')


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision that "auto" means on a device.

    A CPU without instructions for bf16 takes fp32 in its place.

    Raises:
        ValueError: It is unknown, or "fp16" on a CPU.
    """
    is_cpu = device.type == 'cpu'
    if precision == 'auto':
        precision = 'bf16' if is_cpu else 'fp16'
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision={precision!r} must be '
            f"{', '.join(map(repr, PRECISIONS))} or 'auto'"
        )
    if precision == 'fp16' and is_cpu:
        # Whether its products are summed in float32 depends on the CPU.
        raise ValueError(
            "precision='fp16' needs a GPU: use 'auto', 'fp32' or 'bf16'"
        )
    if precision == 'bf16' and is_cpu and not sums_bf16_in_fp32():
        return 'fp32'
    return precision


def sums_bf16_in_fp32() -> bool:
    """Return whether the CPU multiplies bf16, and sums in float32."""
    return torch.backends.mkldnn.is_available() and has_fast_bf16()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Have GPUs sum half-precision products in float32.

    And CPUs multiply float32 as it is.
    """
    settings: Any = torch.backends.cuda.matmul
    values = dict(
        allow_fp16_reduced_precision_reduction=False,
        allow_bf16_reduced_precision_reduction=False,
        allow_fp16_accumulation=False,
    )
    if device.type == 'cpu':
        settings = getattr(torch.backends.mkldnn, 'matmul', None)
        values = dict(fp32_precision='ieee')
    # Releases of torch before a setting compute as it says.
    before = {
        name: getattr(settings, name)
        for name in values
        if hasattr(settings, name)
    }
    for name in before:
        setattr(settings, name, values[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
