# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The largest similarities in a coarse precision, and a bound on the rest."""

import torch
from torch import Tensor

from .bank import Bank, unit_fp32
from .bounds import SLACK
from .precision import HALF, PRECISIONS, full_precision

# Significant bits that a float32 product keeps of its factors.
FP32_FACTORS = {'highest': 24, 'high': 11, 'medium': 8}


def find_largest(
    queries: Tensor, bank: Bank, k: int, precision: str
) -> tuple[Tensor, Tensor]:
    """Find about the k nearest in a coarse precision.

    Returns:
        tuple[Tensor, Tensor]: Their places (Q, k), and for each query the
        similarity (Q,) that no other feature exceeds.
    """
    dtype = PRECISIONS[precision]
    coarse = queries.to(dtype)
    # The k best so far, and after them the similarities to a block.
    length = min(bank.block, len(bank.features))
    values = coarse.new_empty(len(queries), k + length)
    values[:, :k] = -torch.inf
    index = torch.zeros(
        (len(queries), k), dtype=torch.int64, device=queries.device
    )
    with full_precision(queries.device):
        for start, part, lengths in bank.blocks():
            part = unit_fp32(part, lengths).to(dtype)
            end = k + len(part)
            torch.mm(coarse, part.T, out=values[:, k:end])
            # The bank's order within a half-precision tie does not matter.
            best, order = values[:, :end].topk(k)
            values[:, :k] = best
            before = index.gather(-1, order.clamp_max(k - 1))
            index = torch.where(order < k, before, order - k + start)
    worst = values[:, :k].min(-1).values.double()
    # |q b - q' b'| <= |q - q'| |b| + |q'| |b - b'|; then the rounding of the
    # sum, of the result, and of the bank's normalisation in float32.
    residual = (queries - coarse).norm(dim=-1)
    bank_residual = bank.residual if precision in HALF else 0.0
    error = residual + (1 + residual) * (bank_residual + SLACK)
    error += queries.shape[-1] * 2.0**-23 + torch.finfo(dtype).eps / 2
    if precision == 'fp32' and queries.device.type != 'cpu':
        bits = FP32_FACTORS[torch.get_float32_matmul_precision()]
        error += 0 if bits == 24 else 2.0 ** (1 - bits)
    return index, worst + error
