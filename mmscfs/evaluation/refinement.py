# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Similarities of candidates in float64, and the best of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bank import Bank
from .bounds import Candidates

# Features whose similarities are refined at a time, and by a core of a CPU:
# few, so that they stay in its cache.
REFINED, ROWS = 1 << 12, 32


class Neighbors(NamedTuple):
    """The nearest features of each query, best first.

    Attributes:
        similarity (Tensor): Cosines, float64 of shape (Q, k).
        index (Tensor): Their places in the bank, int64 of shape (Q, k).
    """

    similarity: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index


def merge_neighbors(similarity: Tensor, index: Tensor, k: int) -> Neighbors:
    """Return the k best of any candidates, in the order of find_neighbors.

    Args:
        similarity (Tensor): Cosines, float64 of shape (Q, n), n >= k.
        index (Tensor): Places in the bank, int64 of shape (Q, n) or (n,), all
            different within a row.
        k (int): How many to keep.
    """
    # The bits of float32, but for the sign, are ordered as its values are,
    # and -0 is 0; below them what is the larger the earlier the place.
    bits = similarity.float().add_(0).view(torch.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = bits.long().bitwise_left_shift_(32)
    keys |= ~index & 0xFFFFFFFF
    order = _largest(keys, k)
    index = index.expand_as(similarity)
    return Neighbors(similarity.gather(-1, order), index.gather(-1, order))


def _largest(keys: Tensor, k: int) -> Tensor:
    """Return where the k largest of each row (Q, n) are, largest first."""
    if keys.device.type != 'cpu':
        return keys.topk(k).indices
    # NumPy takes a third of the time.
    keys, rest = keys.numpy(), keys.shape[-1] - k
    chosen = np.argpartition(keys, rest)[:, rest:]
    order = np.take_along_axis(keys, chosen, -1).argsort()[:, ::-1]
    return torch.from_numpy(np.take_along_axis(chosen, order, -1))


def can_read(features: Tensor) -> bool:
    """Whether NumPy can read features where they are."""
    return features.device.type == 'cpu' and features.dtype != torch.bfloat16


def refine(queries: Tensor, bank: Bank, index: Tensor) -> Tensor:
    """Return the similarities (Q, n) of candidates (Q, n), in float64."""
    # Filled in place: what stays between large chunks splits a CPU's heap.
    similarity = queries.new_empty(index.shape)
    if queries.device.type == 'cpu' and can_read(bank.features):

        def work(rows: range) -> None:
            cosines = _Cosines(bank)
            for row in rows:
                exact = cosines(queries[row].numpy(), index[row].numpy())
                similarity[row] = torch.from_numpy(exact)

        _in_threads(work, len(queries))
        return similarity
    rows = max(1, REFINED // index.shape[-1])
    for query, places, result in zip(
        queries.split(rows),
        index.split(rows),
        similarity.split(rows),
        strict=True,
    ):
        flat = places.flatten()
        features = bank.features[flat.to(bank.features.device)]
        features = features.to(queries.device).double()
        features = features.unflatten(0, places.shape)
        lengths = bank.norms[flat].view(places.shape)
        result.copy_((features @ query[..., None]).squeeze(-1) / lengths)
    return similarity


def refine_above(
    queries: Tensor, bank: Bank, candidates: Candidates, k: int
) -> Neighbors:
    """Return the k best of what find_above found, on a CPU.

    Where that are too few, the last similarity is minus infinity.
    """
    shape = (len(queries), k)
    found = Neighbors(
        queries.new_full(shape, -torch.inf),
        torch.zeros(shape, dtype=torch.int64),
    )

    def work(rows: range) -> None:
        cosines = _Cosines(bank)
        for row in rows:
            upper = candidates.upper[row].numpy()
            places = candidates.places[row].numpy()
            if len(places) < k:
                continue
            order = np.argsort(-upper)
            upper, places = upper[order], places[order]
            query = queries[row].numpy()
            exact = cosines(query, places[:k])
            # What else may be as near as the last of these k.
            count = (upper >= exact.min().astype(np.float32)).sum()
            rest = cosines(query, places[k:count])
            exact, places = np.concatenate([exact, rest]), places[:count]
            # As merge_neighbors has them; NumPy takes less time for few.
            order = np.lexsort((places, -exact.astype(np.float32)))[:k]
            found.similarity[row] = torch.from_numpy(exact[order])
            found.index[row] = torch.from_numpy(places[order])

    _in_threads(work, len(queries))
    return found


class _Cosines:
    """Computes similarities of one query in float64, on a CPU."""

    def __init__(self, bank: Bank) -> None:
        self.features = bank.features.numpy()
        self.norms = bank.norms.numpy()
        # Few at a time, in one place, which stays in the cache.
        shape = (ROWS, self.features.shape[1])
        self.fetched = np.empty(shape, self.features.dtype)
        self.exact = np.empty(shape)

    def __call__(self, query: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return those of a query (C,) and features at places (n,)."""
        similarity = np.empty(len(places))
        for start in range(0, len(places), ROWS):
            part = places[start : start + ROWS]
            fetched = self.fetched[: len(part)]
            self.features.take(part, 0, fetched, 'clip')
            exact = self.exact[: len(part)]
            np.copyto(exact, fetched)
            np.vecdot(exact, query, out=similarity[start : start + ROWS])
        return similarity / self.norms[places]


def _in_threads(work: Callable[[range], None], count: int) -> None:
    """Share out the numbers below a count to as many threads as torch has."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        # Reading the results raises what a thread has raised.
        list(
            pool.map(work, (range(i, count, threads) for i in range(threads)))
        )
