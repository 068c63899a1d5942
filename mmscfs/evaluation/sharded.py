# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Nearest neighbours where every process holds a part of the features."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .bank import measure_bank
from .neighbors import find_neighbors, search_bank
from .precision import resolve_precision
from .refinement import Neighbors, merge_neighbors

LAST = torch.iinfo(torch.int64).max


def find_sharded_neighbors(
    queries: Tensor,
    bank: Tensor,
    bank_index: Tensor,
    k: int,
    query_block: int = 4096,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
    **kwargs: Any,
) -> Neighbors:
    """Find neighbours in the banks of all processes.

    As :func:`find_neighbors` on the whole bank finds them. Queries travel,
    the bank stays where it is. Every process must call it; without a process
    group it searches the one bank.

    Args:
        queries (Tensor): This process's queries, (Q, C), on the device that
            the process group communicates on.
        bank (Tensor): This process's part of the bank, (M, C).
        bank_index (Tensor): The places of its features in the whole bank,
            int64 of shape (M,), ascending.
        k (int): Number of neighbours.
        query_block (int): Queries compared at a time, of all processes
            together. Defaults to 4096.
        track (Callable): Wraps the blocks of queries, for a progress bar.
            Defaults to ``iter``.
        **kwargs: Those of :func:`find_neighbors`.

    Returns:
        Neighbors: Of this process's queries, (Q, k); ``index`` holds places
        in the whole bank.

    Raises:
        ValueError: As :func:`find_neighbors`, k counted over all processes.
    """
    device = queries.device
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        found = find_neighbors(
            queries, bank, k, query_block=query_block, track=track, **kwargs
        )
        return Neighbors(found.similarity, bank_index.to(device)[found.index])
    sizes = torch.tensor([len(queries), len(bank)], device=device)
    everywhere = [torch.empty_like(sizes) for _ in range(world)]
    dist.all_gather(everywhere, sizes)
    most_queries = max(int(size[0]) for size in everywhere)
    total = sum(int(size[1]) for size in everywhere)
    if not 1 <= k <= total:
        raise ValueError(
            f'k={k} must be at least 1 and at most the {total} features of '
            'the bank'
        )
    block = max(1, query_block // world)
    search = _searcher(bank, bank_index, k, device, **kwargs)
    parts = []
    for start in track(range(0, most_queries, block)):
        own = queries[start : start + block]
        # Collectives need one size: what is short is filled, and cut again.
        padded = queries.new_zeros(block, queries.shape[1])
        padded[: len(own)] = own
        blocks = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(blocks, padded)
        found = search(torch.cat(blocks))
        similarity, index = (
            _exchange(values, world)[: len(own)] for values in found
        )
        parts.append(merge_neighbors(similarity, index, k))
    return Neighbors(*map(torch.cat, zip(*parts, strict=True)))


def _searcher(
    bank: Tensor,
    bank_index: Tensor,
    k: int,
    device: torch.device,
    precision: str = 'auto',
    bank_block: int = 8192,
) -> Callable[[Tensor], Neighbors]:
    """Return a search of this process's bank, which it measures once.

    Where the bank is short, nothing is nearer.
    """
    here = min(k, len(bank))
    if here:
        precision = resolve_precision(precision, device)
        measured = measure_bank(bank, precision, bank_block, device)
        places = bank_index.to(device)

    def search(queries: Tensor) -> Neighbors:
        shape = (len(queries), k)
        similarity = torch.full(
            shape, -torch.inf, dtype=torch.float64, device=device
        )
        # Places that no feature has, all different.
        index = LAST - torch.arange(k, device=device).expand(shape)
        if here:
            found = search_bank(
                queries, measured, here, precision, len(queries)
            )
            similarity[:, :here] = found.similarity
            index = index.clone()
            index[:, :here] = places[found.index]
        return Neighbors(similarity, index)

    return search


def _exchange(values: Tensor, world: int) -> Tensor:
    """Send each process its queries' rows.

    Args:
        values (Tensor): This bank's answer to all queries, (W B, k).
        world (int): Number of processes W.

    Returns:
        Tensor: All banks' answers to this process's queries, (B, W k).
    """
    received = torch.empty_like(values.contiguous())
    dist.all_to_all_single(received, values.contiguous())
    return received.unflatten(0, (world, -1)).transpose(0, 1).flatten(1)
