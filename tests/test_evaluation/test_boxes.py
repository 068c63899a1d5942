# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of the box probe's figures, against plain loops in float64."""

import math

import numpy as np
import pytest
import torch

from mmscfs.evaluation import (
    background_boxes,
    box_features,
    count_pixels,
    mean_iou,
    paint_masks,
    patch_labels,
    sample_patches,
    segment_patches,
)


def bilinear(channel, y, x):
    """Sample a map between its cells, as RoIAlign does."""
    height, width = channel.shape
    y, x = (min(max(v, 0.0), n - 1) for v, n in ((y, height), (x, width)))
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * channel[top, left] + dx * channel[top, right]
    below = (1 - dx) * channel[low, left] + dx * channel[low, right]
    return (1 - dy) * above + dy * below


def test_box_features_equal_plain_loops():
    feature_map = torch.randn(4, 5, 7, dtype=torch.float64)
    boxes = torch.tensor([[8.0, 16, 72, 70], [0, 0, 30, 30], [50, 3, 112, 80]])
    found = box_features(feature_map, boxes, (80, 112))
    for box, row in zip((boxes / 16 - 0.5).tolist(), found, strict=True):
        ys, xs = (
            [first + (last - first) * (i + 0.5) / 6 for i in range(6)]
            for first, last in ((box[1], box[3]), (box[0], box[2]))
        )
        cells = []
        for channel in feature_map.numpy():
            samples = [[bilinear(channel, y, x) for x in xs] for y in ys]
            # Four samples of each of 3 x 3 cells.
            cells += (
                np.reshape(samples, (3, 2, 3, 2)).mean((1, 3)).ravel().tolist()
            )
        length = math.sqrt(sum(value**2 for value in cells))
        expected = np.array(cells) / length
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-9)


def overlap(a, b):
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return both / (sum(areas) - both)


def test_background_boxes_meet_no_object():
    boxes = torch.tensor([[10.0, 10, 50, 40], [60, 50, 100, 90]])
    avoid = torch.cat([boxes, torch.tensor([[0.0, 60, 40, 100]])])
    found = [
        background_boxes(boxes, avoid, (100, 120), seed) for seed in range(50)
    ]
    for drawn in found:
        sizes = (drawn[:, 2:] - drawn[:, :2]).round().tolist()
        assert sizes in ([[40, 30], [40, 40]], [[40, 30]], [[40, 40]], [])
        for box in drawn.tolist():
            assert min(box) >= 0
            assert (box[2] <= 120, box[3] <= 100) == (True, True)
            assert all(overlap(box, other) < 0.3 for other in avoid.tolist())
    assert sum(map(len, found)) > 90
    again = background_boxes(boxes, avoid, (100, 120), 7)
    assert torch.equal(again, found[7])
    assert not torch.equal(again, found[8])


@pytest.mark.parametrize('count', [0, 1])
def test_images_without_room_or_objects_have_no_background(count):
    boxes = torch.tensor([[0.0, 0, 100, 100]])[:count]
    assert background_boxes(boxes, boxes, (100, 100), 0).shape == (0, 4)


def test_small_masks_are_in_front_and_crowds_are_left_out():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True  # small, first
    masks[1, :, :4] = True
    crowd = torch.zeros(1, 4, 6, dtype=torch.bool)
    crowd[0, 0, 3:] = True
    found = paint_masks(masks, torch.tensor([0, 1]), crowd, (5, 6), 2)
    assert found.tolist() == [
        [1, 1, 1, 1, -1, -1],
        [1, 0, 0, 1, 2, 2],
        [1, 0, 0, 1, 2, 2],
        [1, 1, 1, 1, 2, 2],
        [-1] * 6,  # beyond the image
    ]


def test_segmentation_equals_plain_loops():
    queries = torch.randn(6, 5, dtype=torch.float64)
    memory = torch.randn(9, 5, dtype=torch.float64)
    labels = torch.randint(-1, 3, (16, 24))
    shares = torch.rand(9, 3, dtype=torch.float64)
    scores = segment_patches(
        *(queries, memory, shares, 4, 0.1), precision='fp64'
    )
    expected = []
    for query in queries.numpy():
        cosines = [
            query @ key / np.linalg.norm(query) / np.linalg.norm(key)
            for key in memory.numpy()
        ]
        near = sorted(range(9), key=lambda i: -cosines[i])[:4]
        weights = np.array([math.exp(cosines[i] / 0.1) for i in near])
        expected.append(weights @ shares.numpy()[near] / weights.sum())
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)
    # Resized from 2 x 3 patches of 8 x 8 px, between their centers.
    maps = np.transpose(expected).reshape(3, 2, 3)
    counts = np.zeros((3, 3), int)
    for y, x in np.argwhere(labels.numpy() >= 0):
        at = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
        values = [bilinear(channel, *at) for channel in maps]
        counts[labels[y, x], int(np.argmax(values))] += 1
    found = count_pixels(scores, (2, 3), labels)
    assert found.tolist() == counts.tolist()
    ious = [
        counts[c, c] / (counts[c].sum() + counts[:, c].sum() - counts[c, c])
        for c in range(3)
    ]
    assert mean_iou(found) == pytest.approx(100 * sum(ious) / 3, abs=1e-9)


def test_classes_that_no_image_shows_do_not_count():
    counts = torch.tensor([[3, 0, 1], [0, 0, 0], [2, 1, 4]])
    assert mean_iou(counts) == pytest.approx(100 * (3 / 6 + 4 / 8) / 2)


def test_shares_of_a_patch():
    labels = torch.tensor([[0, 0, 1, -1], [0, 1, -1, -1], [-1] * 4, [-1] * 4])
    shares = patch_labels(labels, (2, 2), 2)
    assert shares.tolist() == [[0.75, 0.25], [0, 1], [0, 0], [0, 0]]


def test_a_memory_prefers_rare_classes_and_leaves_out_what_is_ignored():
    shares = torch.zeros(100, 2, dtype=torch.float64)
    shares[:10, 0] = 1
    shares[10:90, 1] = 1  # the last ten are ignored
    chosen = [sample_patches(shares, 10, seed) for seed in range(100)]
    rare = sum(int((places < 10).sum()) for places in chosen)
    # A tenth would be 111 by chance. The smallest of u * 10 and v * 80.
    assert rare > 400
    assert max(int(places.max()) for places in chosen) < 90
    assert len(sample_patches(shares, 1000, 0)) == 90
