# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Nearest neighbors by cosine similarity, in bounded memory.

Matrix products by blocks, in half precision where that is faster, choose some
more candidates than neighbors are wanted; their similarities, computed in
float32, rank them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mmscfs.compatibility import has_fast_bf16

PRECISIONS = {
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
    'fp32': torch.float32,
    'fp64': torch.float64,
}
BLOCK = 4096  # queries, and features of the bank, compared at a time
MARGIN = 32  # candidates beyond k, as half precision ranks roughly
AVERAGED = 256  # features of the bank whose mean stands for that of all
RERANKED = 1 << 13  # candidates that a GPU fetches at a time


class Neighbors(NamedTuple):
    """The nearest features of each query, best first."""

    #: Cosines, float32 (float64 if the precision was "fp64") of shape (Q, k).
    similarity: Tensor
    #: Their places in the bank, int64 of shape (Q, k).
    index: Tensor  # type: ignore[assignment]  # hides tuple.index


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
        raise ValueError(
            "precision='fp16' needs a GPU: use 'auto', 'fp32' or 'bf16'"
        )
    if precision == 'bf16' and is_cpu and not has_fast_bf16():
        return 'fp32'
    return precision


@torch.no_grad()
def find_neighbors(
    queries: Tensor,
    bank: Tensor,
    k: int,
    precision: str = 'auto',
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
    bank_index: Tensor | None = None,
) -> Neighbors:
    """Find the k features of a bank that are nearest to each query.

    Nearness is the cosine similarity; a feature of zeros has similarity 0 to
    all. Similarities that float32 cannot tell apart come in any order, and
    half precision may miss a few neighbors at the end of the list where many
    features are nearly as near; "fp32" does not.

    With ``bank_index`` the processes of a group share the bank: each has a
    part of it and its own queries, and all must call this function together.
    Queries travel, the bank stays where it is.

    Args:
        queries (Tensor): Features of shape (Q, C), of any length and
            floating type, on the device that computes and communicates.
        bank (Tensor): Features of shape (M, C); they may lie elsewhere, also
            in a memory-mapped file, and are fetched a block at a time.
        k (int): Number of neighbors.
        precision (str): Of the products that choose candidates: "fp16" (GPU
            only), "bf16", "fp32", "fp64" (then all is computed in it), or
            "auto": fp16 on a GPU, on a CPU bf16 if it has instructions for it
            and else fp32. Defaults to "auto".
        track (Callable): Wraps the blocks of queries, for a progress bar.
            Defaults to ``iter``.
        bank_index (Tensor, optional): Places of the features of ``bank`` in
            the whole bank, int64 of shape (M,). Defaults to None: it is
            whole.

    Returns:
        Neighbors: Tensors of shape (Q, k), on the device of the queries.

    Raises:
        ValueError: k is not in [1, M], M counted over the processes that
            share the bank, the precision is unknown, the shapes do not fit,
            or a feature is not finite.

    Example:
        >>> bank = torch.tensor([[2.0, 0], [3, 4], [0, 5]])
        >>> found = find_neighbors(torch.tensor([[1.0, 0]]), bank, k=2)
        >>> found.similarity, found.index
        (tensor([[1.0000, 0.6000]]), tensor([[0, 1]]))
    """
    device = queries.device
    is_shared = bank_index is not None and dist.is_initialized()
    world = dist.get_world_size() if is_shared else 1
    for name, features in (('queries', queries), ('bank', bank)):
        # A process may be left without a part.
        if features.ndim != 2 or (world == 1 and 0 in features.shape):
            raise ValueError(
                f'{name}: features of shape {tuple(features.shape)} must be '
                '(N, C), at least one of each'
            )
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f'queries have {queries.shape[1]} channels, the bank '
            f'{bank.shape[1]}: take both from the same layer'
        )
    sizes = torch.tensor([[len(queries), len(bank)]], device=device)
    if world > 1:
        sizes = _gather(sizes, world)
    most_queries, total = int(sizes[:, 0].max()), int(sizes[:, 1].sum())
    if not 1 <= k <= total:
        raise ValueError(
            f'k={k} must be at least 1 and at most the {total} features of '
            'the bank'
        )
    dtype = PRECISIONS[resolve_precision(precision, device)]
    bank = _bring_near(bank, device)
    if bank_index is not None:
        bank_index = bank_index.to(device)
    own_k = min(k, len(bank))
    share = max(1, BLOCK // world)
    parts = []
    for start in track(range(0, most_queries, share)):
        own = block = queries[start : start + share]
        if world > 1:
            # Collectives need one size: what is short is filled, and cut.
            filled = F.pad(own, (0, 0, 0, share - len(own)))
            block = _gather(filled, world)
        similarity, index = _search(block, bank, own_k, dtype)
        if bank_index is not None:
            index = bank_index[index]
        if world > 1:
            similarity, index = (
                _exchange(F.pad(values, (0, k - own_k), value=fill), world)
                for values, fill in ((similarity, -torch.inf), (index, -1))
            )
            similarity, order = similarity[: len(own)].topk(k)
            index = index[: len(own)].gather(-1, order)
        parts.append((similarity, index))
    return Neighbors(*map(torch.cat, zip(*parts, strict=True)))


def _gather(values: Tensor, world: int) -> Tensor:
    """Collect rows of all processes, which have as many each."""
    everywhere = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(everywhere, values)
    return torch.cat(everywhere)


def _bring_near(bank: Tensor, device: torch.device) -> Tensor:
    """Send a bank to a GPU once, if it fills at most half of what is free."""
    if device.type != 'cuda':
        return bank
    free, _ = torch.cuda.mem_get_info(device)
    return bank.to(device) if 2 * bank.nbytes < free else bank


def _search(
    queries: Tensor, bank: Tensor, k: int, dtype: torch.dtype
) -> Neighbors:
    """Search all of a bank (M, C) for a block of queries (Q, C)."""
    queries = queries.to(torch.promote_types(dtype, torch.float32))
    queries = F.normalize(queries, dim=-1)
    kept = min(k + MARGIN, len(bank))
    index = torch.zeros(
        (len(queries), kept), dtype=torch.int64, device=queries.device
    )
    if not kept:  # this process has no part of the bank
        return Neighbors(queries.new_zeros(index.shape), index)
    # q (b - c) ranks features b as q b does. Where these are much alike, it
    # is small if c is their mean, and so is its error in half precision.
    sample = bank[:: -(-len(bank) // AVERAGED)].to(queries)
    center = F.normalize(sample, dim=-1).mean(0)
    lengths = queries.new_empty(len(bank))
    coarse = queries.to(dtype)
    # The best so far, and after them the similarities to a block.
    values = coarse.new_empty(len(queries), kept + min(BLOCK, len(bank)))
    values[:, :kept] = -torch.inf
    for start in range(0, len(bank), BLOCK):
        part = bank[start : start + BLOCK].to(queries)
        length = part.norm(dim=-1).clamp_min(1e-12)
        lengths[start : start + BLOCK] = length
        part = (part / length[:, None]).sub_(center).to(dtype)
        end = kept + len(part)
        torch.mm(coarse, part.T, out=values[:, kept:end])
        best, order = values[:, :end].topk(kept, sorted=False)
        values[:, :kept] = best
        before = index.gather(-1, order.clamp_max(kept - 1))
        index = torch.where(order < kept, before, order - kept + start)
    similarity = _products(queries, bank, index) / lengths[index]
    similarity, order = similarity.topk(k)
    if similarity.isnan().any():
        name = 'bank' if queries.isfinite().all() else 'queries'
        raise ValueError(
            f'{name}: a feature is not finite (NaN or infinite): the network '
            'has diverged, or ran in a precision whose range it exceeds'
        )
    return Neighbors(similarity, index.gather(-1, order))


def _products(queries: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Return the products (Q, n) of queries and their candidates (Q, n)."""
    products = torch.empty_like(index, dtype=queries.dtype)
    # Those of one query fit the cache of a CPU's core.
    on_cpu = queries.device.type == 'cpu'
    rows = 1 if on_cpu else max(1, RERANKED // index.shape[1])
    for query, places, product in zip(
        queries.split(rows),
        index.split(rows),
        products.split(rows),
        strict=True,
    ):
        features = bank.index_select(0, places.flatten().to(bank.device))
        features = features.to(queries).unflatten(0, places.shape)
        torch.bmm(features, query[..., None], out=product[..., None])
    return products


def _exchange(values: Tensor, world: int) -> Tensor:
    """Turn this bank's answers to all queries (W B, n) into all W banks'.

    Those to this process's queries, (B, W n).
    """
    received = torch.empty_like(values)
    dist.all_to_all_single(received, values)
    return received.unflatten(0, (world, -1)).transpose(0, 1).flatten(1)
