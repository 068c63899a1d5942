# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from plain_reference import search
from torch.testing import assert_close

from mmscfs.models import SoftFeatureSearch
from mmscfs.models.search import search_attention


def test_search_equals_plain_loop():
    local_maps = torch.randn(3, 2, 5, 3, 2, dtype=torch.float64)
    global_maps = torch.randn(2, 2, 5, 4, 3, dtype=torch.float64)
    found = SoftFeatureSearch()(local_maps, global_maps)
    assert found.shape == (2, 3, 2, 5, 4, 3)
    for g in range(2):
        for n in range(3):
            for b in range(2):
                assert_close(
                    found[g, n, b],
                    search(local_maps[n, b], global_maps[g, b]),
                    rtol=1e-9,
                    atol=1e-15,
                )


def test_attention_is_one_where_the_map_shows_the_query():
    query = torch.tensor([[[3.0, 4.0]]])
    keys = torch.zeros(1, 1, 2, 1, 3)
    keys[0, 0, :, 0, 0] = torch.tensor([6.0, 8.0])  # same direction
    keys[0, 0, :, 0, 1] = torch.tensor([-4.0, 3.0])  # orthogonal
    attention = search_attention(query, keys)
    # The last position has no length, and so no similarity.
    assert_close(attention.flatten(), torch.tensor([1.0, 0.0, 0.0]))


def test_search_carries_no_gradient_and_keeps_the_type():
    maps = torch.randn(2, 1, 4, 3, 3, requires_grad=True)
    found = SoftFeatureSearch()(maps, maps.to(torch.bfloat16))
    assert not found.requires_grad
    assert found.dtype == torch.bfloat16


def test_search_refuses_other_channels():
    with pytest.raises(ValueError, match='same batch and channels'):
        SoftFeatureSearch()(
            torch.zeros(1, 2, 4, 3, 3), torch.zeros(1, 2, 5, 3, 3)
        )
