# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The precisions of a search's fast pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
    if precision == 'bf16' and is_cpu and not _has_fast_bf16():
        return 'fp32'
    return precision


def _has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16, and sums in float32."""
    able = torch.cpu.get_capabilities()
    names = ('amx_bf16', 'avx512_bf16')
    return torch.backends.mkldnn.is_available() and any(
        able.get(name, False) for name in names
    )


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Have GPUs sum half-precision products in float32.

    And CPUs multiply float32 as it is.
    """
    settings = torch.backends.cuda.matmul
    values = dict(
        allow_fp16_reduced_precision_reduction=False,
        allow_bf16_reduced_precision_reduction=False,
        allow_fp16_accumulation=False,
    )
    if device.type == 'cpu':
        settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        values = dict(fp32_precision='ieee')
    before = {name: getattr(settings, name) for name in values}
    for name, value in values.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
