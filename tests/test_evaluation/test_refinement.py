# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmscfs.evaluation.refinement import merge_neighbors


@pytest.mark.parametrize('k', [1, 4, 10])
def test_the_best_are_first_and_of_equals_the_earlier(k):
    # -0 equals 0, and what float32 cannot tell apart is equal too.
    values = [0.0, -0.0, 0.5, -0.5, 1.0, 0.5 + 1e-12, -1.0, -1e-300, 1e-300, 1]
    similarity = torch.tensor([values, values[::-1]], dtype=torch.float64)
    index = torch.stack([torch.randperm(10) + 2**31 for _ in range(2)])
    found = merge_neighbors(similarity, index, k)
    for row in range(2):
        rounded = similarity[row].float().tolist()
        places = index[row].tolist()
        order = sorted(range(10), key=lambda i: (-rounded[i], places[i]))[:k]
        assert found.index[row].tolist() == [places[i] for i in order]
        # The similarities themselves are not rounded.
        assert torch.equal(found.similarity[row], similarity[row][order])


def test_places_may_be_the_same_for_all_queries():
    similarity = torch.randn(5, 30, dtype=torch.float64)
    places = torch.randperm(30)
    found = merge_neighbors(similarity, places, 7)
    expected = merge_neighbors(similarity, places.repeat(5, 1), 7)
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.similarity, expected.similarity)
    best = similarity.topk(7)
    assert torch.equal(found.index, places[best.indices])


def test_places_that_no_feature_has_come_last():
    last = torch.iinfo(torch.int64).max
    similarity = torch.tensor([[-torch.inf, -1.0, -torch.inf, 0.5]]).double()
    index = torch.tensor([[last, 3, last - 1, 7]])
    found = merge_neighbors(similarity, index, 2)
    assert found.index.tolist() == [[7, 3]]
