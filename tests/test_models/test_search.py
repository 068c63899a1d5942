# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from plain_reference import roi_crop, search
from torch.testing import assert_close

from mmscfs.models import RoIFeatureSearch, SoftFeatureSearch
from mmscfs.models.search import regions_in_views, search_attention


def test_search_equals_plain_loop():
    local_maps = torch.randn(3, 2, 5, 3, 2, dtype=torch.float64)
    global_maps = torch.randn(2, 2, 5, 4, 3, dtype=torch.float64)
    found = SoftFeatureSearch()(local_maps, global_maps)
    found = found.add_to_(torch.zeros(2 * 3 * 2, 5, 4, 3).double())
    found = found.unflatten(0, (2, 3, 2))
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
    for part in found:
        assert not part.requires_grad
        assert part.dtype == torch.bfloat16


def test_search_refuses_other_channels():
    with pytest.raises(ValueError, match='same batch and channels'):
        SoftFeatureSearch()(
            torch.zeros(1, 2, 4, 3, 3), torch.zeros(1, 2, 5, 3, 3)
        )


# RoI crop. The map of a global view of 64 px has 8 x 8 cells of 8 px.
VIEW = [0, 0, 64, 64, 0]


def cut(crop, view, size=(4, 4), maps=None):
    """Return what one crop's region of one map is, and the pair's weight."""
    if maps is None:
        maps = torch.arange(64.0).view(1, 8, 8)
    search = RoIFeatureSearch()
    crops = torch.tensor([[crop]]), torch.tensor([[view]])
    local_maps = torch.zeros(1, 1, len(maps), *size)
    found = search(local_maps, maps[None, None], *crops)
    return found[0, 0, 0], search.pair_weights(*crops).item()


def test_region_is_cut_out_cell_by_cell():
    maps = torch.arange(64.0).view(1, 8, 8)
    # 16 to 48 px across and 8 to 40 px down: columns 2-5 and rows 1-4.
    crop = [16, 8, 48, 40, 0]
    found, weight = cut(crop, VIEW)
    assert_close(found, maps[:, 1:5, 2:6])
    assert weight == 1
    # Of half the size: means over 2 x 2 cells.
    found, _ = cut(crop, VIEW, size=(2, 2))
    cells = maps[:, 1:5, 2:6].view(1, 2, 2, 2, 2)
    assert_close(found, cells.mean((2, 4)))


def test_region_in_a_crop_that_is_moved_and_enlarged():
    maps = torch.arange(64.0).view(1, 8, 8)
    # The view shows 100 to 116 px across and 40 to 72 down, so a cell has
    # 2 x 4 px; the crop covers its columns 1-4 and rows 3-6.
    found, weight = cut([102, 52, 110, 68, 0], [100, 40, 116, 72, 0])
    assert_close(found, maps[:, 3:7, 1:5])
    assert weight == 1


def test_flips_move_the_region_and_mirror_it():
    maps = torch.arange(64.0).view(1, 8, 8)
    crop, view = [16, 8, 48, 40], [0, 0, 64, 64]
    straight = maps[:, 1:5, 2:6]
    # A flipped view shows the image's columns 2-5 as its columns 5-2, which
    # are symmetric here; columns 0-3 it shows as 7-4.
    assert_close(cut([*crop, 1], [*view, 0])[0], straight.flip(-1))
    assert_close(cut([*crop, 0], [*view, 1])[0], straight.flip(-1))
    assert_close(cut([*crop, 1], [*view, 1])[0], straight)
    corner = [0, 8, 32, 40]
    assert_close(cut([*corner, 1], [*view, 1])[0], maps[:, 1:5, 4:8])
    assert_close(cut([*corner, 0], [*view, 1])[0], maps[:, 1:5, 4:8].flip(-1))


def test_only_what_both_show_is_cut_out():
    maps = torch.arange(64.0).view(1, 8, 8)
    # 32 px of 64 across and 16 px of 48 down: columns 4-7, rows 6 and 7.
    found, weight = cut([32, 48, 96, 96, 0], VIEW, size=(2, 4))
    assert_close(found, maps[:, 6:8, 4:8])
    assert weight == 1


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
    found, weight = cut(crop, VIEW, size=(8, 8))
    assert weight == 0
    # What stands for the region must be harmless to batch norm: the view.
    assert_close(found.sort().values, torch.arange(64.0).view(1, 8, 8))


def test_roi_search_equals_plain_loop():
    generator = torch.Generator().manual_seed(3)

    def random_crops(count, low, high):
        size = torch.randint(low, high, (count, 4, 2), generator=generator)
        start = torch.randint(0, 60, (count, 4, 2), generator=generator)
        flip = torch.randint(0, 2, (count, 4, 1), generator=generator)
        return torch.cat([start, start + size, flip], -1).double()

    local_crops = random_crops(3, 8, 40)
    global_crops = random_crops(2, 30, 70)
    local_maps = torch.randn(3, 4, 5, 3, 2, dtype=torch.float64)
    global_maps = torch.randn(2, 4, 5, 7, 6, dtype=torch.float64)
    search = RoIFeatureSearch()
    found = search(local_maps, global_maps, local_crops, global_crops)
    weights = search.pair_weights(local_crops, global_crops)
    assert found.shape == (2, 3, 4, 5, 3, 2)
    assert 0 < weights.mean() < 1
    for g in range(2):
        for n in range(3):
            for b in range(4):
                expected = roi_crop(
                    local_crops[n, b].tolist(),
                    local_maps[n, b],
                    global_crops[g, b].tolist(),
                    global_maps[g, b],
                )
                assert weights[g, n, b] == (expected is not None)
                if expected is not None:
                    assert_close(
                        found[g, n, b], expected, rtol=1e-9, atol=1e-12
                    )


def test_roi_search_keeps_the_type_and_carries_no_gradient():
    crops = torch.tensor([[[0.0, 0, 8, 8, 0]]])
    maps = torch.randn(1, 1, 4, 3, 3, requires_grad=True)
    found = RoIFeatureSearch()(maps, maps.bfloat16(), crops, crops)
    assert not found.requires_grad
    assert found.dtype == torch.bfloat16


def test_regions_are_shares_of_the_view():
    local = torch.tensor([[[10.0, 5, 30, 25, 0]]])
    views = torch.tensor([[[0.0, 0, 40, 50, 0]], [[0.0, 0, 40, 50, 1]]])
    regions, overlap = regions_in_views(local, views)
    assert_close(
        regions[:, 0, 0],
        torch.tensor([[0.25, 0.1, 0.75, 0.5], [0.25, 0.1, 0.75, 0.5]]),
    )
    assert overlap.all()
