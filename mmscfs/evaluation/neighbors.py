# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Exact nearest neighbours by cosine similarity, in bounded memory.

A fast pass finds candidates, in half precision where that is faster; their
similarities are then computed in float64. A bound on the fast pass's error
tells of each query whether any other feature could belong among its
neighbours; if so, the query is searched again in a finer precision. So block
sizes, precision and the number of processes change the time, not the result.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .bank import (
    Bank,
    check_finite,
    check_shape,
    measure_bank,
    row_norms,
    unit,
)
from .bounds import find_above
from .coarse import find_largest
from .precision import HALF, PRECISIONS, full_precision, resolve_precision
from .refinement import (
    Neighbors,
    can_read,
    merge_neighbors,
    refine,
    refine_above,
)

# A CPU compares in float64 at once with a bank of so many features, or of so
# many times k: that takes less time than to find candidates.
SMALL, SMALL_TIMES_K = 2048, 16
# Similarities that are computed in float64 at a time.
COMPARED = 1 << 20


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
            only), "bf16", "fp32", "fp64", or "auto": fp16 on a GPU, on a CPU
            bf16 if it has instructions for it and else fp32. It changes the
            time, not the result. Defaults to "auto".
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
    precision = resolve_precision(precision, queries.device)
    bank = measure_bank(bank, precision, bank_block, queries.device)
    return search_bank(queries, bank, k, precision, query_block, track)


def search_bank(
    queries: Tensor,
    bank: Bank,
    k: int,
    precision: str,
    query_block: int,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Neighbors:
    """Find neighbours in a bank that is measured, as find_neighbors does."""
    check_shape(queries, 'queries')
    if queries.shape[1] != bank.features.shape[1]:
        raise ValueError(
            f'queries have {queries.shape[1]} channels, the bank '
            f'{bank.features.shape[1]}: take both from the same layer'
        )
    if not 1 <= k <= len(bank.features):
        raise ValueError(
            f'k={k} must be at least 1 and at most the {len(bank.features)} '
            'features of the bank'
        )
    norms = [row_norms(block) for block in queries.split(query_block)]
    check_finite(torch.cat(norms), 'queries')
    parts = []
    for start in track(range(0, len(queries), query_block)):
        block = unit(queries[start : start + query_block])
        parts.append(_search(block, bank, k, precision))
    return Neighbors(*map(torch.cat, zip(*parts, strict=True)))


def _search(
    queries: Tensor,
    bank: Bank,
    k: int,
    precision: str,
    is_first: bool = True,
) -> Neighbors:
    """Search a block of queries, the open ones again in finer precision.

    Args:
        queries (Tensor): Of length 1, float64 (Q, C).
        bank (Bank): The bank.
        k (int): Number of neighbours.
        precision (str): A key of ``PRECISIONS``.
        is_first (bool): Whether no other search has left them open. Defaults
            to True.
    """
    on_cpu = queries.device.type == 'cpu'
    is_small = len(bank.features) <= max(SMALL, SMALL_TIMES_K * k)
    if precision == 'fp64' or (on_cpu and is_small):
        return _search_all(queries, bank, k)
    if on_cpu and is_first and can_read(bank.features):
        found, limit = _search_above(queries, bank, k, precision)
        finer = 'fp32'
    else:
        # NumPy has no bfloat16; and what the guess has left open.
        precision = 'fp32' if on_cpu else precision
        found, limit = _search_top(queries, bank, k, precision)
        finer = 'fp32' if precision in HALF else 'fp64'
    # Nothing else is nearer than the limit.
    is_open = found.similarity[:, -1].float() <= limit
    if is_open.any():
        again = _search(queries[is_open], bank, k, finer, is_first=False)
        for values, new in zip(found, again, strict=True):
            values[is_open] = new
    return found


def _search_above(
    queries: Tensor, bank: Bank, k: int, precision: str
) -> tuple[Neighbors, Tensor]:
    """Search on a CPU; returns what was found and limits, as _search_top.

    Where too few were found, the last similarity is minus infinity.
    """
    with full_precision(queries.device):
        candidates = find_above(
            queries,
            bank.features,
            bank.norms,
            bank.centre,
            k,
            PRECISIONS[precision],
            bank.block,
        )
    return refine_above(queries, bank, candidates, k), candidates.limit


def _search_top(
    queries: Tensor, bank: Bank, k: int, precision: str
) -> tuple[Neighbors, Tensor]:
    """Search by the largest similarities in a coarse precision.

    Returns:
        tuple[Neighbors, Tensor]: The best of those, and for each query the
        similarity (Q,) that no other feature exceeds.
    """
    # Some more than k, so that what is just out of reach is seen as such.
    kept = min(k + k // 4 + 32, len(bank.features))
    candidates, limit = find_largest(queries, bank, kept, precision)
    similarity = refine(queries, bank, candidates)
    if kept == len(bank.features):
        limit = torch.full_like(limit, -torch.inf)
    return merge_neighbors(similarity, candidates, k), limit


def _search_all(queries: Tensor, bank: Bank, k: int) -> Neighbors:
    """Compare queries with all the bank in float64."""
    width = min(bank.block, len(bank.features))
    parts = queries.split(max(1, COMPARED // width))
    found: list[Neighbors | None] = [None] * len(parts)
    for start, features, norms in bank.blocks():
        features = features.to(torch.float64, copy=True)
        features = features.div_(norms[:, None]).T
        places = torch.arange(
            start, start + features.shape[1], device=queries.device
        )
        for i, part in enumerate(parts):
            similarity, index = part @ features, places
            best = found[i]
            if best is not None:
                similarity = torch.cat([best.similarity, similarity], -1)
                index = index.expand(len(part), -1)
                index = torch.cat([best.index, index], -1)
            kept = min(k, similarity.shape[1])
            found[i] = merge_neighbors(similarity, index, kept)
    return Neighbors(*map(torch.cat, zip(*found, strict=True)))
