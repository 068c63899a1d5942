# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from torch.testing import assert_close

from mmscfs.visualization import (
    SearchMaps,
    SearchSample,
    compute_search_maps,
    draw_search_maps,
    jigsaw,
    search_layers,
)
from mmscfs.visualization.search import cut_views, overlay


@pytest.fixture
def model(scfs_cfg):
    return MODELS.build(scfs_cfg)


def compute(model, image, local_views):
    return compute_search_maps(
        model.teacher.backbone, search_layers(model), image, local_views
    )


def test_maps_are_cosine_similarities_of_the_teacher(model):
    image, local_views = torch.randn(3, 64, 64), torch.randn(2, 3, 32, 32)
    maps = compute(model, image, local_views)
    assert list(maps) == ['layer2', 'layer3', 'layer4']
    model.eval()
    keys = model.teacher.backbone(image[None])[1][0]
    queries = model.teacher.backbone(local_views)[1].mean((2, 3))
    mean = (queries[0] + queries[1]) / 2  # as the paper's (c) and (e)
    for y in range(keys.shape[1]):
        for x in range(keys.shape[2]):
            for query, found in (
                (queries[1], maps['layer3'].views[1]),
                (mean, maps['layer3'].mean),
            ):
                key = keys[:, y, x]
                expected = torch.cosine_similarity(query, key, dim=0)
                assert_close(found[y, x], expected)


def test_local_views_may_differ_in_size(model):
    image = torch.randn(3, 64, 96)
    tiles = [torch.randn(3, 32, 32), torch.randn(3, 48, 32)]
    maps = compute(model, image, tiles)
    assert maps['layer2'].views.shape == (2, 8, 12)
    alone = compute(model, image, tiles[1:])
    assert_close(maps['layer2'].views[1], alone['layer2'].mean)


def test_outputs_that_are_not_maps_are_refused():
    backbone = torch.nn.Flatten()
    views = torch.rand(3, 4, 4), torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match='layer4 of Flatten is not a feature'):
        compute_search_maps(backbone, dict(layer4=0), *views)


def test_jigsaw_cuts_the_quarters():
    image = np.zeros((64, 128, 3), np.uint8)
    image[:32, :64], image[:32, 64:] = 10, 20
    image[32:, :64], image[32:, 64:] = 30, 40
    whole, tiles = cut_views(image, jigsaw(), 64, 32)
    assert whole.shape == (64, 128, 3)
    assert [tile.shape for tile in tiles] == [(32, 64, 3)] * 4
    values = [np.unique(tile).tolist() for tile in tiles]
    assert values == [[10], [20], [30], [40]]


def test_views_keep_their_shape_in_whole_patches():
    image = np.zeros((300, 451, 3), np.uint8)
    boxes = np.array([[0, 0, 0.5, 1]])  # 226 x 300 px
    whole, (tile,) = cut_views(image, boxes, 224, 96)
    # 451 / 300 * 224 = 336.7 and 300 / 226 * 96 = 127.4, by steps of 16.
    assert whole.shape == (224, 336, 3)
    assert tile.shape == (128, 96, 3)


def test_less_than_a_pixel_at_the_edge_is_that_pixel():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 59], image[39] = 7, 9
    boxes = np.array([[59.6, 3, 60, 9], [3, 39.8, 9, 40]])
    boxes /= [60, 40, 60, 40]
    _, tiles = cut_views(image, boxes, 64, 32)
    assert [np.unique(tile).tolist() for tile in tiles] == [[7], [9]]


def test_a_line_of_pixels_does_not_take_all_memory():
    """It would become 64 x 1,280,000 px."""
    image = np.zeros((1, 20_000, 3), np.uint8)
    whole, tiles = cut_views(image, jigsaw(), 64, 32)
    assert whole.shape == (64, 512, 3)
    assert {tile.shape for tile in tiles} == {(32, 256, 3)}


def test_networks_stand_side_by_side():
    """One of two has a layer less; of one network, two images."""
    maps = SearchMaps(torch.zeros(2, 2), torch.rand(4, 2, 2))
    image = np.full((16, 16, 3), 128, np.uint8)
    parts = image, [image] * 4, dict(a=dict(layer2=maps)), jigsaw()
    one = SearchSample(*parts)
    two = one._replace(
        found=one.found | dict(b=dict(layer2=maps, layer3=maps))
    )
    alone, both, pair = (
        draw_search_maps(samples).shape
        for samples in ([one], [two], [one] * 2)
    )
    assert pair[0] == alone[0]
    assert pair[1] == both[1]
    # A row of maps is 112 px high, its caption 14, and 12 are between rows.
    assert both[0] == alone[0] + 112 + 14 + 12
    assert both[1] > 1.8 * alone[1]


def test_overlay_is_brightest_where_the_map_is():
    grey = np.full((40, 40, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 2] = 1
    brightness = overlay(grey, heat).sum(-1)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert (y // 10, x // 10) == (1, 2)
    # A flat map does not divide by zero.
    assert np.ptp(overlay(grey, np.ones((2, 2)))) < 256
