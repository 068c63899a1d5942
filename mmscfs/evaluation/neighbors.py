# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Exact nearest neighbours by cosine similarity, in bounded memory.

A fast pass finds candidates, in half precision where that is faster; their
similarities are then computed in float64. A bound on the fast pass's error
tells of each query whether any other feature could belong among its
neighbours; if so, the query is searched again in a finer precision. So block
sizes, precision and the number of processes change the time, not the result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

# The fast pass's precisions; a query that one leaves open goes to the next.
PRECISIONS = {
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
    'fp32': torch.float32,
    'fp64': torch.float64,
}
HALF = ('fp16', 'bf16')
# Features whose similarities are refined at a time.
REFINED = 1 << 12
# Significant bits that a float32 product keeps of its factors.
FP32_FACTORS = {'highest': 24, 'high': 11, 'medium': 8}


class Neighbors(NamedTuple):
    """The nearest features of each query, best first.

    Attributes:
        similarity (Tensor): Cosines, float64 of shape (Q, k).
        index (Tensor): Their places in the bank, int64 of shape (Q, k).
    """

    similarity: Tensor
    index: Tensor


def find_neighbors(
    queries: Tensor,
    bank: Tensor,
    k: int,
    precision: str = 'auto',
    query_block: int = 4096,
    bank_block: int = 8192,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Neighbors:
    """Find the k features of a bank that are nearest to each query.

    Nearness is the cosine similarity, rounded to float32; among equals the
    one earlier in the bank comes first. A feature of zeros has similarity 0
    to all.

    Args:
        queries (Tensor): Features of shape (Q, C), of any length and
            floating type, on the device that computes.
        bank (Tensor): Features of shape (M, C); they may lie elsewhere, also
            in a memory-mapped file, and are fetched a block at a time.
        k (int): Number of neighbours.
        precision (str): Of the pass that finds candidates: "fp16" (GPU
            only), "bf16", "fp32", "fp64", or "auto": fp16 on a GPU, fp32 on
            a CPU. It changes the time, not the result. Defaults to "auto".
        query_block (int): Queries compared at a time. Defaults to 4096.
        bank_block (int): Features of the bank compared at a time. Defaults
            to 8192.
        track (Callable): Wraps the blocks of queries, for a progress bar.
            Defaults to ``iter``.

    Returns:
        Neighbors: Tensors of shape (Q, k), on the device of the queries.

    Raises:
        ValueError: k is not in [1, M], the precision is unknown, the shapes
            do not fit, or a feature is not finite.
    """
    check_shape(queries, 'queries')
    check_shape(bank, 'bank')
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f'queries have {queries.shape[1]} channels, the bank '
            f'{bank.shape[1]}: take both from the same layer'
        )
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'k={k} must be at least 1 and at most the {len(bank)} features '
            'of the bank'
        )
    precision = resolve_precision(precision, queries.device)
    lengths = [_norms(block) for block in queries.split(query_block)]
    check_finite(torch.cat(lengths), 'queries')
    measured = _measure(bank, precision, bank_block)
    parts = []
    for start in track(range(0, len(queries), query_block)):
        block = unit(queries[start : start + query_block])
        parts.append(_search(block, measured, k, precision))
    return Neighbors(*map(torch.cat, zip(*parts, strict=True)))


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision that "auto" means on a device.

    Raises:
        ValueError: It is unknown, or "fp16" on a CPU.
    """
    is_cpu = device.type == 'cpu'
    if precision == 'auto':
        # bf16 is fast on some CPUs, but leaves most queries open.
        return 'fp32' if is_cpu else 'fp16'
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
    return precision


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


def merge_neighbors(similarity: Tensor, index: Tensor, k: int) -> Neighbors:
    """Return the k best of any candidates, in the order of find_neighbors.

    Args:
        similarity (Tensor): Cosines, float64 of shape (Q, n), n >= k.
        index (Tensor): Places in the bank, int64 of shape (Q, n), all
            different within a row.
        k (int): How many to keep.
    """
    # Two stable sorts: by place, then by similarity where places decide ties.
    index, order = index.sort(dim=-1)
    similarity = similarity.gather(-1, order)
    order = similarity.float().argsort(dim=-1, descending=True, stable=True)
    order = order[..., :k]
    return Neighbors(similarity.gather(-1, order), index.gather(-1, order))


def unit(features: Tensor) -> Tensor:
    """Return features (N, C) scaled to length 1, in float64."""
    return features.double() / _norms(features)[:, None]


class _Bank(NamedTuple):
    """A bank, and what one pass over it tells.

    Attributes:
        features (Tensor): Shape (M, C).
        norms (Tensor): Their lengths, float64 (M,); none is 0.
        residual (float): How far at most a feature of length 1 is from what
            the first precision makes of it.
        block (int): How many to take at a time.
    """

    features: Tensor
    norms: Tensor
    residual: float
    block: int

    def blocks(
        self, device: torch.device
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (place of the first, features, lengths), on a device."""
        for start in range(0, len(self.features), self.block):
            part = slice(start, start + self.block)
            features = self.features[part].to(device)
            yield start, features, self.norms[part].to(device)


def _norms(features: Tensor) -> Tensor:
    """Return the lengths (N,) of features in float64; none is 0."""
    norms = torch.linalg.vector_norm(features, dim=-1, dtype=torch.float64)
    return norms.clamp_min(1e-30)


def _measure(features: Tensor, precision: str, block: int) -> _Bank:
    """Pass over a bank once.

    Raises:
        ValueError: A feature is not finite.
    """
    norms = features.new_empty(len(features), dtype=torch.float64)
    residual = 0.0
    for part, lengths in zip(
        features.split(block), norms.split(block), strict=True
    ):
        lengths.copy_(_norms(part))
        if precision in HALF:
            exact = _unit_fp32(part, lengths)
            coarse = exact.to(PRECISIONS[precision]).float()
            largest = (exact - coarse).norm(dim=-1).max().item()
            residual = max(residual, largest)
    check_finite(norms, 'bank')
    return _Bank(features, norms, residual, block)


def _unit_fp32(features: Tensor, norms: Tensor) -> Tensor:
    return features.float() / norms.float()[:, None]


def _search(queries: Tensor, bank: _Bank, k: int, precision: str) -> Neighbors:
    """Search a block of queries, the open ones again in finer precision.

    Args:
        queries (Tensor): Of length 1, float64 (Q, C).
        bank (_Bank): The bank.
        k (int): Number of neighbours.
        precision (str): A key of ``PRECISIONS``.
    """
    if precision == 'fp64':
        return _search_all(queries, bank, k)
    # Some more than k, so that what is just out of reach is seen as such.
    kept = min(k + k // 4 + 32, len(bank.features))
    candidates, limit = _find_candidates(queries, bank, kept, precision)
    similarity = _refine(queries, bank, candidates)
    found = merge_neighbors(similarity, candidates, k)
    if kept == len(bank.features):
        return found
    # Nothing outside the candidates is nearer than the limit.
    is_open = found.similarity[:, -1].float() <= limit
    if is_open.any():
        finer = 'fp32' if precision in HALF else 'fp64'
        again = _search(queries[is_open], bank, k, finer)
        for values, new in zip(found, again, strict=True):
            values[is_open] = new
    return found


def _find_candidates(
    queries: Tensor, bank: _Bank, k: int, precision: str
) -> tuple[Tensor, Tensor]:
    """Find about the k nearest in a coarse precision.

    Returns:
        tuple[Tensor, Tensor]: Their places (Q, k), and for each query the
        similarity (Q,) that no other feature exceeds.
    """
    dtype = PRECISIONS[precision]
    coarse = queries.to(dtype)
    best = index = None
    # One place for all blocks: made anew, they would split a CPU's heap.
    shape = (min(bank.block, len(bank.features)), queries.shape[1])
    buffer = coarse.new_empty(shape)
    with _full_accumulation():
        for start, part, lengths in bank.blocks(queries.device):
            part = buffer[: len(part)].copy_(_unit_fp32(part, lengths))
            # The bank's order within a half-precision tie does not matter.
            top = (coarse @ part.T).float().topk(min(k, len(part)))
            places = top.indices + start
            if best is None:
                best, index = top.values, places
                continue
            best = torch.cat([best, top.values], -1)
            index = torch.cat([index, places], -1)
            best, order = best.topk(min(k, best.shape[-1]))
            index = index.gather(-1, order)
    worst = best.min(-1).values.double()
    # |q b - q' b'| <= |q - q'| |b| + |q'| |b - b'|; then the rounding of the
    # sum, of the result, and of the bank's normalisation in float32.
    residual = (queries - coarse).norm(dim=-1)
    bank_residual = bank.residual if precision in HALF else 0.0
    error = residual + (1 + residual) * (bank_residual + 2e-6)
    error += queries.shape[-1] * 2.0**-24 + torch.finfo(dtype).eps / 2
    if precision == 'fp32':
        bits = FP32_FACTORS[torch.get_float32_matmul_precision()]
        error += 0 if bits == 24 else 2.0 ** (1 - bits)
    return index, worst + error


def _refine(queries: Tensor, bank: _Bank, index: Tensor) -> Tensor:
    """Return the similarities (Q, n) of candidates (Q, n), in float64."""
    # Filled in place: what stays between large chunks splits a CPU's heap.
    similarity = queries.new_empty(index.shape)
    rows = max(1, REFINED // index.shape[-1])
    for query, places, result in zip(
        queries.split(rows),
        index.split(rows),
        similarity.split(rows),
        strict=True,
    ):
        flat = places.flatten().to(bank.features.device)
        features = bank.features[flat].to(queries.device).double()
        features = features.unflatten(0, places.shape)
        lengths = bank.norms[flat].to(queries.device).view(places.shape)
        result.copy_((features @ query[..., None]).squeeze(-1) / lengths)
    return similarity


def _search_all(queries: Tensor, bank: _Bank, k: int) -> Neighbors:
    """Compare queries with all the bank in float64."""
    found = None
    for start, part, lengths in bank.blocks(queries.device):
        similarity = queries @ part.double().T / lengths
        index = torch.arange(start, start + len(part), device=queries.device)
        index = index.expand_as(similarity)
        if found is not None:
            similarity = torch.cat([found.similarity, similarity], -1)
            index = torch.cat([found.index, index], -1)
        found = merge_neighbors(similarity, index, k)
    return found


@contextmanager
def _full_accumulation() -> Iterator[None]:
    """Have GPUs sum half-precision products in float32."""
    settings = torch.backends.cuda.matmul
    names = (
        'allow_fp16_reduced_precision_reduction',
        'allow_bf16_reduced_precision_reduction',
        'allow_fp16_accumulation',
    )
    before = [getattr(settings, name) for name in names]
    for name in names:
        setattr(settings, name, False)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(settings, name, value)
