# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import torch
from mmpretrain.registry import MODELS
from torch.testing import assert_close

from mmscfs.visualization import compute_search_maps, draw_search_maps
from mmscfs.visualization.search_maps import overlay


def test_maps_are_cosine_similarities_of_the_teacher(scfs_cfg):
    model = MODELS.build(scfs_cfg)
    image, local_views = torch.randn(3, 64, 64), torch.randn(2, 3, 32, 32)
    maps = compute_search_maps(model, image, local_views)
    assert list(maps) == ['layer2', 'layer3', 'layer4']
    model.eval()
    keys = model.teacher.backbone(image[None])[1][0]
    query = model.teacher.backbone(local_views)[1][1].mean((1, 2))
    for y in range(keys.shape[1]):
        for x in range(keys.shape[2]):
            expected = torch.cosine_similarity(query, keys[:, y, x], dim=0)
            assert_close(maps['layer3'][1, y, x], expected)


def test_computing_maps_leaves_the_model_as_it_was(scfs_cfg):
    model = MODELS.build(scfs_cfg).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    compute_search_maps(
        model, torch.randn(3, 32, 32), torch.randn(2, 3, 32, 32)
    )
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_overlay_is_brightest_where_the_map_is():
    grey = np.full((40, 40, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 2] = 1
    brightness = overlay(grey, heat).sum(-1)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert (y // 10, x // 10) == (1, 2)
    # A flat map is no reason to divide by zero.
    assert np.ptp(overlay(grey, np.ones((2, 2)))) < 256


def test_picture_has_a_row_a_layer(tmp_path):
    sample = (
        np.zeros((16, 16, 3), np.uint8),
        [np.full((8, 8, 3), 255, np.uint8)] * 2,
        dict(layer2=torch.rand(2, 4, 4), layer3=torch.rand(2, 2, 2)),
    )
    sizes = []
    for count in (1, 2):
        draw_search_maps([sample] * count, tmp_path / 'maps.png', 'title')
        sizes.append(cv2.imread(str(tmp_path / 'maps.png')).shape)
    assert sizes[1][0] > 1.6 * sizes[0][0]
    assert sizes[1][1] == sizes[0][1]
