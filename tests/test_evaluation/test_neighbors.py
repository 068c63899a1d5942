# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from toy_runs import in_processes

from mmscfs.evaluation import (
    find_neighbors,
    neighbors,
    resolve_precision,
)

K = 9


def plain_neighbors(queries, bank, k):
    """Sort every cosine, rounded to float32, with Python's own sort."""
    expected = []
    for query in queries.double().tolist():
        cosines = []
        for row in bank.double().tolist():
            length = math.hypot(*query) * math.hypot(*row)
            product = math.fsum(x * y for x, y in zip(query, row, strict=True))
            cosines.append(float(np.float32(product / (length or 1))))
        order = sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))
        expected.append(order[:k])
    return torch.tensor(expected)


def check_neighbors(found, queries, bank, k):
    """Compare with a plain loop, but for the order of what is equally near."""
    cosines = torch.cosine_similarity(
        queries.double()[:, None], bank.double(), dim=-1
    )
    best = cosines.gather(1, plain_neighbors(queries, bank, k))
    for index in found.index.tolist():
        assert len(set(index)) == k
    close = dict(rtol=0, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(cosines.gather(1, found.index), best, **close)
    torch.testing.assert_close(found.similarity, best, **close)


def random_features():
    """Features of any length."""
    lengths = torch.logspace(-3, 3, 120)[:, None]
    return torch.randn(25, 6), lengths * torch.randn(120, 6)


def tied_features():
    """Vectors of -1, 0 and 1: few different cosines, and zeros."""
    return (
        torch.randint(-1, 2, (25, 3)).float(),
        torch.randint(-1, 2, (120, 3)).float(),
    )


def like_features():
    """Cosines that differ by less than half precision can tell."""
    common = torch.randn(6)
    return (
        common + 1e-2 * torch.randn(25, 6),
        common + 1e-2 * torch.randn(120, 6),
    )


@pytest.mark.parametrize('k', [K, 120])
@pytest.mark.parametrize('block', [4096, 7])
@pytest.mark.parametrize('precision', ['bf16', 'fp32', 'fp64'])
@pytest.mark.parametrize(
    'features', [random_features, tied_features, like_features]
)
def test_neighbors_are_those_of_a_plain_loop(
    features, precision, block, k, monkeypatch
):
    monkeypatch.setattr(neighbors, 'BLOCK', block)
    queries, bank = features()
    before = bank.clone()
    found = find_neighbors(queries, bank, k, precision)
    assert torch.equal(bank, before)
    check_neighbors(found, queries, bank, k)


@pytest.mark.parametrize('alike', [0, 3])
def test_half_precision_finds_what_single_precision_finds(alike):
    """It is wrong by more than the last neighbors differ."""
    queries, bank = torch.randn(40, 64), torch.randn(3000, 64)
    queries, bank = alike + queries, alike + bank
    found = find_neighbors(queries, bank, 50, 'bf16')
    queries, bank = (
        x.double() / x.double().norm(dim=-1, keepdim=True)
        for x in (queries, bank)
    )
    best = (queries @ bank.T).topk(50)
    torch.testing.assert_close(
        found.similarity, best.values, rtol=0, atol=1e-6, check_dtype=False
    )
    assert (found.index == best.indices).double().mean() > 0.99


def test_double_precision_is_double_throughout():
    queries, bank = random_features()
    found = find_neighbors(queries, bank, K, 'fp64')
    expected = torch.cosine_similarity(
        queries.double()[:, None], bank.double()[found.index], dim=-1
    )
    torch.testing.assert_close(found.similarity, expected, rtol=0, atol=1e-14)


def test_a_feature_of_zeros_is_like_none():
    bank = torch.randn(5, 3)
    bank[2] = 0
    found = find_neighbors(torch.zeros(1, 3), bank, 2)
    assert found.similarity.tolist() == [[0, 0]]
    found = find_neighbors(torch.randn(1, 3), bank, 5)
    assert found.similarity[found.index == 2].tolist() == [0]


class LargestTensor(TorchDispatchMode):
    """Remembers the most bytes that an operator has returned."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.nbytes)
        return result


def test_memory_does_not_grow_with_bank_and_queries(monkeypatch):
    monkeypatch.setattr(neighbors, 'BLOCK', 64)
    largest = []
    for count in (1000, 3000):
        queries, bank = torch.randn(count // 4, 128), torch.randn(count, 128)
        with LargestTensor() as mode:
            find_neighbors(queries, bank, 2, 'fp32')
        largest.append(mode.bytes)
    # The sample of the bank, the largest part: 250 features of 128 channels.
    assert largest == [4 * 128 * 250] * 2


def test_a_bank_in_a_memory_mapped_file(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbors, 'BLOCK', 13)
    queries, bank = random_features()
    np.save(tmp_path / 'bank.npy', bank.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / 'bank.npy', mmap_mode='c'))
    check_neighbors(find_neighbors(queries, mapped, K), queries, bank, K)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_features_of_other_types(dtype):
    queries, bank = (x.to(dtype) for x in random_features())
    check_neighbors(find_neighbors(queries, bank, K), queries, bank, K)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(k=0), 'k=0 must be at least 1 and at most the 120 features'),
        (dict(k=121), 'k=121 must be'),
        (dict(precision='int8'), "precision='int8' must be 'fp16', 'bf16'"),
        (dict(precision='fp16'), "precision='fp16' needs a GPU"),
        (dict(queries=torch.ones(4, 5)), '5 channels, the bank 6'),
        (dict(queries=torch.ones(0, 6)), r'queries: .* \(0, 6\)'),
        (dict(bank=torch.ones(9, 6, 1)), r'bank: .* \(9, 6, 1\)'),
    ],
)
def test_bad_input_is_refused(change, message):
    queries, bank = random_features()
    settings = dict(queries=queries, bank=bank, k=3) | change
    with pytest.raises(ValueError, match=message):
        find_neighbors(**settings)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['queries', 'bank'])
def test_features_that_are_not_finite_are_refused(name, value, monkeypatch):
    monkeypatch.setattr(neighbors, 'AVERAGED', 2)  # not this one
    features = dict(zip(('queries', 'bank'), random_features(), strict=True))
    features[name][11, 2] = value
    with pytest.raises(ValueError, match=f'{name}: a feature is not finite'):
        find_neighbors(**features, k=3)


@pytest.mark.parametrize(('able', 'expected'), [(1, 'bf16'), (0, 'fp32')])
@pytest.mark.parametrize('precision', ['auto', 'bf16'])
def test_auto_is_the_fastest_that_a_cpu_has(
    precision, able, expected, monkeypatch
):
    monkeypatch.setattr(neighbors, 'has_fast_bf16', lambda: able)
    assert resolve_precision(precision, torch.device('cpu')) == expected


def search_part(queries, bank):
    """Search as one of several processes."""
    rank, world = dist.get_rank(), dist.get_world_size()
    own = torch.arange(rank, 120, world)
    if world == 4:  # some have fewer than k features, one has none
        own = torch.arange(120).tensor_split([70, 75, 120])[rank]
    parts = queries[rank::world], bank[own]
    with pytest.raises(ValueError, match='at most the 120 features'):
        find_neighbors(*parts, 121, bank_index=own)
    # Of a hundred neighbors some point the other way.
    return {
        k: tuple(find_neighbors(*parts, k, bank_index=own)) for k in (K, 100)
    }


@pytest.mark.parametrize('world', [2, 4])
def test_several_processes_find_what_one_finds(world, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbors, 'BLOCK', 10)
    queries, bank = random_features()
    found = in_processes(search_part, world, tmp_path, queries, bank)
    for rank, parts in enumerate(found):
        for k, values in parts.items():
            values = neighbors.Neighbors(*values)
            check_neighbors(values, queries[rank::world], bank, k)


def test_one_process_returns_places_in_the_whole_bank():
    queries, bank = random_features()
    found = find_neighbors(queries, bank, K, bank_index=10 * torch.arange(120))
    expected = find_neighbors(queries, bank, K)
    assert torch.equal(found.index, 10 * expected.index)
    assert torch.equal(found.similarity, expected.similarity)
