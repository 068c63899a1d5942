# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
import torch

from mmscfs.evaluation import find_neighbors, neighbors, precision


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


def random_features():
    return torch.randn(25, 6), 3 * torch.randn(120, 6)


def tied_features():
    """Vectors of -1, 0 and 1: few different cosines, and zeros."""
    return (
        torch.randint(-1, 2, (25, 3)).float(),
        torch.randint(-1, 2, (120, 3)).float(),
    )


def collapsed_features():
    """Cosines that differ by less than half precision can tell."""
    direction = torch.randn(6)
    return (
        direction + 1e-3 * torch.randn(25, 6),
        direction + 1e-3 * torch.randn(120, 6),
    )


@pytest.fixture
def no_bank_is_small(monkeypatch):
    """Also these few features go through the fast pass."""
    monkeypatch.setattr(neighbors, 'SMALL', 0)
    monkeypatch.setattr(neighbors, 'SMALL_TIMES_K', 0)


SETTINGS = [
    dict(precision=precision, query_block=queries, bank_block=bank)
    for precision in ('fp64', 'fp32', 'bf16')
    for queries, bank in ((4096, 8192), (7, 11), (25, 1), (1, 120))
]


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize(
    'features', [random_features, tied_features, collapsed_features]
)
@pytest.mark.usefixtures('no_bank_is_small')
def test_neighbors_are_those_of_a_plain_loop(features, settings):
    queries, bank = features()
    expected = plain_neighbors(queries, bank, 9)
    found = find_neighbors(queries, bank, 9, **settings)
    torch.testing.assert_close(found.index, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    'features', [random_features, tied_features, collapsed_features]
)
@pytest.mark.parametrize('bank_block', [8192, 50, 7])
def test_neighbors_in_a_small_bank(features, bank_block):
    queries, bank = features()
    expected = plain_neighbors(queries, bank, 9)
    found = find_neighbors(queries, bank, 9, bank_block=bank_block)
    torch.testing.assert_close(found.index, expected, rtol=0, atol=0)


def test_the_bank_stays_as_it_is():
    queries, bank = (features.double() for features in random_features())
    before = bank.clone()
    find_neighbors(queries, bank, 9)
    assert torch.equal(bank, before)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.usefixtures('no_bank_is_small')
def test_similarities_are_the_cosines(settings):
    queries, bank = random_features()
    found = find_neighbors(queries, bank, 4, **settings)
    expected = torch.cosine_similarity(
        queries.double()[:, None], bank.double()[found.index], dim=-1
    )
    torch.testing.assert_close(found.similarity, expected, rtol=0, atol=1e-14)


def test_of_equals_the_earlier_comes_first():
    bank = torch.eye(3).repeat(50, 1)
    found = find_neighbors(torch.eye(3)[1:2], bank, 6)
    assert found.index.tolist() == [[1, 4, 7, 10, 13, 16]]
    assert found.similarity.tolist() == [[1.0] * 6]


def test_a_feature_of_zeros_is_like_none():
    found = find_neighbors(torch.zeros(1, 3), torch.randn(5, 3), 2)
    assert found.index.tolist() == [[0, 1]]
    assert found.similarity.tolist() == [[0, 0]]


@pytest.mark.usefixtures('no_bank_is_small')
def test_queries_that_stay_open_are_searched_in_finer_precision(monkeypatch):
    searched = []
    original = neighbors._search

    def search(queries, bank, k, precision, is_first=True):
        searched.append((precision, len(queries)))
        return original(queries, bank, k, precision, is_first)

    monkeypatch.setattr(neighbors, '_search', search)
    monkeypatch.setattr(precision, 'has_fast_bf16', lambda: True)
    # More equals than there is room for: only float64 is certain of them.
    queries, bank = torch.ones(25, 6), torch.ones(120, 6)
    bank[::2] *= 3
    find_neighbors(queries, bank, 9, 'bf16', bank_block=20)
    assert searched == [('bf16', 25), ('fp32', 25), ('fp64', 25)]
    searched.clear()
    # Cosines far apart are certain at once.
    angles = torch.linspace(0, 3, 120)
    bank = torch.stack([angles.cos(), angles.sin()], -1)
    find_neighbors(torch.tensor([[0.5, 0.5]]), bank, 2, 'bf16', bank_block=20)
    assert searched == [('bf16', 1)]


@pytest.mark.usefixtures('no_bank_is_small')
def test_a_bank_in_a_memory_mapped_file(tmp_path):
    queries, bank = random_features()
    np.save(tmp_path / 'bank.npy', bank.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / 'bank.npy', mmap_mode='c'))
    found = find_neighbors(queries, mapped, 5, bank_block=13)
    torch.testing.assert_close(
        found.index, plain_neighbors(queries, bank, 5), rtol=0, atol=0
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
@pytest.mark.usefixtures('no_bank_is_small')
def test_features_of_other_types(dtype):
    queries, bank = (x.to(dtype) for x in random_features())
    found = find_neighbors(queries, bank, 5)
    torch.testing.assert_close(
        found.index, plain_neighbors(queries, bank, 5), rtol=0, atol=0
    )


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
def test_features_that_are_not_finite_are_refused(value):
    queries, bank = random_features()
    bank[[3, 50, 50], [0, 1, 2]] = value
    with pytest.raises(ValueError, match='bank: 2 of 120 features are not fi'):
        find_neighbors(queries, bank, 3)
