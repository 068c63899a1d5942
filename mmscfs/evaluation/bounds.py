# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Bounds on cosines by a matrix product that a CPU does fast.

Of queries q and features b of length 1, any vector c and any threshold t of
the query, with q' = q - c, b' = b - c, and Q, B what bfloat16 makes of these:

    q b - t  =  q' b' + c b' - (t - q c)
             <= Q B + |q' - Q| |b'| + |Q| |b' - B| + c b' - (t - q c)

The right side is one product: columns that follow Q and B hold the factors of
the other terms. So a result of 0 or less proves q b <= t. Rounding it to
bfloat16 keeps its sign, which is why the threshold is within the product; and
where c is the mean, q' and b' are short, and so are the errors of Q and B.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# What float32 arithmetic may add to a cosine outside of the product: lengths,
# divisions, differences (each about 2^-24), and three parts for one number.
SLACK = 2e-6
# Numbers that are made ready at a time: few, so that they stay in the cache.
CACHED = 1 << 17
# Results searched for positive ones at a time.
SEARCHED = 1 << 21
# The columns that follow Q and B, in the order that find_above has them:
# three for c b' (1 in Q's), three for t - q c (1 in B's), two for the errors.
EXTRA = 8
# What rounds a length up in bfloat16, and covers its own errors.
UP = 1.01


class Candidates(NamedTuple):
    """The features that may be nearer to each query than its limit.

    Attributes:
        places (tuple[Tensor]): Of each query, int64; some of them only where
            they are too many.
        upper (tuple[Tensor]): Bounds on their cosines, float32.
        limit (Tensor): What no other feature's cosine exceeds, float64 (Q,);
            infinite where they are too many.
    """

    places: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]
    limit: Tensor


def find_above(
    queries: Tensor,
    features: Tensor,
    norms: Tensor,
    centre: Tensor,
    k: int,
    dtype: torch.dtype,
    block: int,
) -> Candidates:
    """Find the features that may exceed what about k of them exceed.

    What they have to exceed is guessed from a sample of one block; whether a
    feature may do so is certain.

    Args:
        queries (Tensor): Of length 1, float64 (Q, C), on a CPU, as all.
        features (Tensor): Finite, (M, C).
        norms (Tensor): Their lengths, float64 (M,).
        centre (Tensor): Any vector not longer than 1, float32 (C,).
        k (int): How many to expect, at most M.
        dtype (torch.dtype): Of the product: bfloat16 or float32.
        block (int): Features taken at a time.
    """
    count, channels = features.shape
    width = -(-(channels + EXTRA) // 32) * 32
    factors = torch.zeros(min(block, count), width, dtype=dtype)
    rows = torch.zeros(len(queries), width, dtype=dtype)
    results = torch.empty(len(rows) * len(factors), dtype=dtype)
    thresholds = rows[:, channels + 3 : channels + 6]
    errors = rows[:, channels + 6 : channels + EXTRA]

    def product(part: slice) -> Tensor:
        own = factors[: len(norms[part])]
        _fill(own, features[part], norms[part], centre)
        result = results[: len(rows) * len(own)].view(len(rows), -1)
        return torch.mm(rows, own.T, out=result)

    error = []
    size = max(1, CACHED // channels)
    for own, query in zip(rows.split(size), queries.split(size), strict=True):
        exact = query - centre
        own[:, :channels] = exact
        coarse = own[:, :channels].double()
        residual = (exact - coarse).norm(dim=-1)
        error.append(torch.stack([residual, coarse.norm(dim=-1)], -1))
    rows[:, channels : channels + 3] = 1
    # The same rank in a sample, and four standard deviations more.
    step = -(-count // block)
    sampled = product(slice(None, None, step))
    expected = k / step
    rank = min(int(expected + 4 * expected**0.5 + 4), sampled.shape[1])
    guess = _rank(sampled, rank)
    errors.copy_(UP * torch.cat(error))
    # The rounding of what is subtracted is heeded as that of a product.
    lowered = guess - _sum_error(width) * guess.abs()
    thresholds.copy_(_three_parts(-lowered, dtype))
    most = 4 * rank * step + k
    totals = np.zeros(len(rows), dtype=np.int64)
    parts = []
    for start in range(0, count, block):
        for row, place, value in _positive(
            product(slice(start, start + block))
        ):
            totals += np.bincount(row, minlength=len(totals))
            few = totals[row] <= most
            parts.append((row[few], place[few] + start, value[few]))
        # Nothing more of a query that has too many.
        thresholds[torch.from_numpy(totals > most)] = -8
    limit = guess.double() + queries @ centre.double() + SLACK
    row, place, value = map(np.concatenate, zip(*parts, strict=True))
    order = torch.from_numpy(np.argsort(row, kind='stable'))
    row, place, value = (
        torch.from_numpy(x)[order] for x in (row, place, value)
    )
    # A positive result was rounded by 2^-9 of it at most.
    upper = (limit[row] + value * (1 + 2.0**-8)).float()
    counts = torch.bincount(row, minlength=len(rows)).tolist()
    limit[torch.from_numpy(totals > most)] = torch.inf
    return Candidates(place.split(counts), upper.split(counts), limit)


def _fill(
    factors: Tensor, features: Tensor, norms: Tensor, centre: Tensor
) -> None:
    """Write the factors (M, K) of features (M, C)."""
    count, channels = features.shape
    sum_error = _sum_error(factors.shape[1])
    norms = norms.float()[:, None]
    shift, length, residual = torch.empty(3, count)
    # One place for all: made anew, it would cost more than what fills it.
    rows = max(1, CACHED // channels)
    scratch = torch.empty(rows, channels)
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        own = factors[part, :channels]
        exact = scratch[: len(own)]
        torch.div(features[part].float(), norms[part], out=exact)
        exact -= centre
        own.copy_(exact)
        torch.mv(exact, centre, out=shift[part])
        torch.linalg.vector_norm(exact, dim=-1, out=length[part])
        exact -= own
        torch.linalg.vector_norm(exact, dim=-1, out=residual[part])
    # c b', with its own error, and in parts that have next to none.
    shift += 2 * sum_error * length
    factors[:, channels : channels + 3] = _three_parts(shift, factors.dtype)
    factors[:, channels + 3 : channels + 6] = 1
    factors[:, channels + 6] = UP * length
    factors[:, channels + 7] = UP * (
        residual + sum_error * (length + residual)
    )


def _sum_error(terms: int) -> float:
    """Return what a float32 sum loses at most, of its terms' absolute sum.

    However it is ordered, and also where its rounding cuts off.
    """
    return terms * 2.0**-23


def _three_parts(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values (N,) as sums of three (N, 3) of the type."""
    parts = []
    for _ in range(3):
        parts.append(values.to(dtype))
        values = values - parts[-1].to(values.dtype)
    return torch.stack(parts, -1)


def _rank(results: Tensor, rank: int) -> Tensor:
    """Return about the rank-th largest of each row (Q, S), not more.

    The largest of few at a time are nearly as good as all, and fewer.
    """
    size = max(1, min(8, results.shape[1] // (4 * rank)))
    most = results.shape[1] // size
    groups = results[:, : size * most].unflatten(1, (size, most))
    return groups.amax(1).float().topk(rank).values[:, -1]


def _positive(results: Tensor) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield rows, columns and values of results (Q, M) above 0."""
    height = max(1, SEARCHED // results.shape[1])
    for start in range(0, len(results), height):
        part = results[start : start + height].view(-1)
        # Of bfloat16 an integer has the sign; NumPy compares faster.
        bits = part.view(torch.int16) if part.dtype == torch.bfloat16 else part
        found = np.flatnonzero(bits.numpy() > 0)
        row, column = np.divmod(found, results.shape[1])
        value = part[torch.from_numpy(found)].float().numpy()
        yield (row + start).astype(np.int32), column, value
