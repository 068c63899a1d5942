# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from mmscfs.models import RoIFeatureSearch, SoftFeatureSearch
from mmscfs.models.search import search_attention


def test_attention_is_one_where_the_map_shows_the_query():
    query = torch.tensor([[[3.0, 4.0]]])
    keys = torch.zeros(1, 1, 2, 1, 3)
    keys[0, 0, :, 0, 0] = torch.tensor([6.0, 8.0])  # same direction
    keys[0, 0, :, 0, 1] = torch.tensor([-4.0, 3.0])  # orthogonal
    attention = search_attention(query, keys)
    # The last position has no length, and so no similarity.
    assert_close(attention.flatten(), torch.tensor([1.0, 0.0, 0.0]))


def test_large_features_do_not_overflow_in_fp16():
    """Their products with unit vectors would: 6e4 times the root of 64."""
    keys = 6e4 * (1 - torch.rand(1, 2, 64, 3, 3) / 2).half()
    queries = torch.rand(1, 2, 64)
    with torch.autocast('cpu', torch.float16):
        attention = search_attention(queries, keys)
    cosines = torch.nn.functional.cosine_similarity(
        queries.double()[0, :, :, None, None], keys.double()[0], dim=1
    )
    assert_close(attention[0, 0].double(), cosines, rtol=1e-5, atol=0)


@pytest.mark.parametrize('search', [SoftFeatureSearch(), RoIFeatureSearch()])
def test_search_carries_no_gradient_and_keeps_the_type(search):
    crops = torch.tensor([[[0.0, 0, 8, 8, 0]]])
    maps = torch.randn(1, 1, 4, 3, 3, requires_grad=True)
    found = search(maps, maps.to(torch.bfloat16), crops, crops)
    for part in found:
        assert not part.requires_grad
        assert part.dtype == torch.bfloat16


# RoI crop. The map of a global view of 64 px has 8 x 8 cells of 8 px.
MAPS = torch.arange(64.0).view(1, 8, 8)
VIEW, FLIPPED = [0, 0, 64, 64, 0], [0, 0, 64, 64, 1]
INNER = MAPS[:, 1:5, 2:6]


def cut(crop, view, size):
    """Return what one crop's region of MAPS is, and the pair's weight."""
    search = RoIFeatureSearch()
    crops = torch.tensor([[crop]]), torch.tensor([[view]])
    found = search(torch.zeros(1, 1, 1, *size), MAPS[None, None], *crops)
    return found[0, 0, 0], search.pair_weights(*crops).item()


@pytest.mark.parametrize(
    ('crop', 'view', 'expected'),
    [
        # 16 to 48 px across and 8 to 40 px down: columns 2-5 and rows 1-4.
        ([16, 8, 48, 40, 0], VIEW, INNER),
        # Of half the size: means over 2 x 2 cells.
        (
            [16, 8, 48, 40, 0],
            VIEW,
            INNER.view(1, 2, 2, 2, 2).mean((2, 4)),
        ),
        # The view shows 100 to 116 px across and 40 to 72 down, so a cell
        # has 2 x 4 px; the crop covers its columns 1-4 and rows 3-6.
        (
            [102, 52, 110, 68, 0],
            [100, 40, 116, 72, 0],
            MAPS[:, 3:7, 1:5],
        ),
        # Columns 2-5 are symmetric; columns 0-3 a flipped view shows as 7-4.
        ([16, 8, 48, 40, 1], VIEW, INNER.flip(-1)),
        ([16, 8, 48, 40, 0], FLIPPED, INNER.flip(-1)),
        ([0, 8, 32, 40, 1], FLIPPED, MAPS[:, 1:5, 4:8]),
        ([0, 8, 32, 40, 0], FLIPPED, MAPS[:, 1:5, 4:8].flip(-1)),
        # Only what both show, 32 px across and 16 px down.
        ([32, 48, 96, 96, 0], VIEW, MAPS[:, 6:8, 4:8]),
    ],
)
def test_region_is_cut_out_cell_by_cell(crop, view, expected):
    found, weight = cut(crop, view, expected.shape[1:])
    assert_close(found, expected)
    assert weight == 1


class Unwaited(TorchFunctionMode):
    """Refuses tensors of a list: a host waits until a GPU has them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.Tensor.new_tensor)
        return func(*args, **(kwargs or {}))


def test_rows_and_columns_have_their_own_scale():
    """And nothing is sent to the device for it."""
    crops = torch.tensor([[[16.0, 16, 48, 48, 0]]]), torch.tensor([[VIEW]])
    maps = MAPS[None, None, :, :4]  # of 8 px across and 16 px down
    with Unwaited():
        found = RoIFeatureSearch()(torch.zeros(1, 1, 1, 2, 4), maps, *crops)
    assert_close(found[0, 0, 0], MAPS[:, 1:3, 2:6])


@pytest.mark.parametrize(
    'crop',
    [
        [64, 0, 96, 64, 0],  # beside it: a common edge is nothing
        [-32, 0, 0, 64, 0],
        [0, 64, 64, 99, 0],
        [200, 200, 220, 220, 1],
    ],
)
def test_pairs_that_do_not_overlap_have_no_weight(crop):
    found, weight = cut(crop, VIEW, (8, 8))
    assert weight == 0
    # What stands for the region must be harmless to batch norm: the view.
    assert_close(found.sort().values, MAPS)
