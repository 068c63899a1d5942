# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The random decisions and boxes of MultiCrop, and how they are distributed.

Statistics are of 1,000 images and hold within 4 standard deviations, with
fixed seeds.
"""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from crop_images import IMAGES, SIDE, halves, make_views, noise, only, plain
from torchvision.transforms import RandomResizedCrop

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.color import PendingColor

# Kolmogorov-Smirnov distance, times sqrt(n), passed once in 16,000 samples:
# as 4 standard deviations.
KS = math.sqrt(-math.log(6.3e-5 / 2) / 2)


def four_sigma(prob, n):
    return 4 * math.sqrt(prob * (1 - prob) / n)


def assert_uncorrelated(columns):
    """Columns that vary have no correlation over 4 standard deviations."""
    varying = [c for c in np.array(columns, float) if c.std() > 0]
    for a, b in combinations(varying, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))


def ks_uniform(values, low, high):
    """Return the distance of values to the uniform distribution."""
    ranks = np.sort((np.asarray(values) - low) / (high - low))
    n = len(ranks)
    steps = np.arange(n + 1) / n
    return max((steps[1:] - ranks).max(), (ranks - steps[:-1]).max())


def ks_two(left, right):
    """Return the distance of two samples of one size."""
    points = np.concatenate([left, right])
    ranks = [
        np.searchsorted(np.sort(s), points, side='right') / len(s)
        for s in (left, right)
    ]
    return np.abs(ranks[0] - ranks[1]).max()


# Random decisions


@pytest.mark.parametrize(
    ('setting', 'image', 'happened', 'rates'),
    [
        (
            'flip_prob',
            halves((10, 20, 30), (200, 210, 220)),
            lambda v: v[..., 0, 0, 0] > v[..., 0, 0, -1],
            (0.5, 0.5, 0.5),
        ),
        (
            'grey_prob',
            plain(40, 90, 200),
            lambda v: (v[..., 0, :, :] == v[..., 2, :, :]).all((-1, -2)),
            (0.2, 0.2, 0.2),
        ),
        (  # some factor or other always shows in a saturated color
            'jitter_prob',
            halves((40, 90, 180), (90, 160, 30)),
            lambda v: (
                v != halves((40, 90, 180), (90, 160, 30)).transpose(2, 0, 1)
            ).any((-1, -2, -3)),
            (0.8, 0.8, 0.8),
        ),
        (
            'blur_prob',
            halves((0, 0, 0), (255, 255, 255)),
            lambda v: v[..., 0, 0, SIDE // 2] < 255,
            (1.0, 0.1, 0.5),
        ),
        (
            'solarize_prob',
            plain(200, 128, 127),
            lambda v: (v[..., 0, 0] == [55, 127, 127]).all(-1),
            (0.0, 0.2, 0.0),
        ),
    ],
    ids=['flip', 'grey', 'jitter', 'blur', 'solarize'],
)
def test_rates_of_each_kind_of_view(setting, image, happened, rates):
    """The defaults give DINO's rates, each view deciding for itself."""
    # A standard deviation below 0.3 px leaves 8-bit values as they are.
    transform = only(setting, blur_sigma=(1, 2))
    seen = happened(make_views(transform, image))
    assert seen.shape == (IMAGES, 4)
    for column, rate in zip(seen.T, (*rates, rates[2]), strict=True):
        assert abs(column.mean() - rate) <= four_sigma(rate, IMAGES)
    assert_uncorrelated(seen.T)


def test_decisions_about_one_view_are_independent():
    image = halves((130, 150, 250), (180, 210, 140))
    transform = only(
        flip_prob=0.5,
        grey_prob=0.5,
        blur_prob=(0.5, 0.5, 0.5),
        blur_sigma=(1, 2),
        solarize_prob=(0.5, 0.5, 0.5),
    )
    views = make_views(transform, image)[:, 0]
    solarized = views.max((1, 2, 3)) < 128
    # Every value was 128 or more: undo the solarization.
    views[solarized] = 255 - views[solarized]
    edge = views[:, :, 0, :]
    grey = (edge[:, 0] == edge[:, 1]).all(1) & (edge[:, 1] == edge[:, 2]).all(
        1
    )
    flipped = edge[:, 1, 0] > edge[:, 1, -1]
    blurred = edge[:, 1, SIDE // 2] != edge[:, 1, -1]
    decisions = [solarized, grey, flipped, blurred]
    for decision in decisions:
        assert abs(decision.mean() - 0.5) <= four_sigma(0.5, IMAGES)
    assert_uncorrelated(decisions)


def test_default_jitter_ranges_and_orders(monkeypatch):
    """All 24 orders are as frequent; factors have the default ranges.

    test_color.py has what a factor does.
    """
    calls, jitter = [], PendingColor.jitter

    def spy(self, operation, value):
        calls.append((operation, value))
        return jitter(self, operation, value)

    monkeypatch.setattr(PendingColor, 'jitter', spy)
    make_views(only('jitter_prob'), noise())
    assert len(calls) % 4 == 0
    steps = np.array(calls).reshape(-1, 4, 2)
    n = len(steps)
    assert abs(n / (4 * IMAGES) - 0.8) <= four_sigma(0.8, 4 * IMAGES)
    orders, counts = np.unique(steps[..., 0], axis=0, return_counts=True)
    assert len(orders) == 24
    assert all(set(order) == {0, 1, 2, 3} for order in orders)
    assert (np.abs(counts / n - 1 / 24) <= four_sigma(1 / 24, n)).all()
    by_operation = np.take_along_axis(
        steps[..., 1], steps[..., 0].argsort(1), axis=1
    ).T
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for values, (low, high) in zip(by_operation, ranges, strict=True):
        assert low <= values.min()
        assert values.max() <= high
        assert ks_uniform(values, low, high) < KS / math.sqrt(n)
    assert_uncorrelated(by_operation)


def test_blur_sigma_is_uniform():
    """The step response tells sigma: a Gaussian's weights worked out here."""
    image = halves((0, 0, 0), (255, 255, 255))
    transform = only(blur_prob=(1, 1, 1))  # sigma 0.1 to 2
    views = make_views(transform, image)
    assert (views[:, :, 0] == views[:, :, 2]).all()
    dark = views[..., 0, 0, SIDE // 2 - 1].ravel()

    def response(sigma):
        # The dark pixel at the edge takes in the weights of one side.
        weights = np.exp(-(np.arange(-30, 31) ** 2) / (2 * sigma**2))
        return 255 * weights[31:].sum() / weights.sum()

    assert dark.min() == 0
    assert abs(dark.max() - response(2)) <= 1
    n = len(dark)
    for sigma in (0.6, 0.8, 1.0, 1.3, 1.6):
        rate = (2 - sigma) / 1.9
        # Half a level of rounding, as a share of the sigma range.
        slope = response(sigma + 0.05) - response(sigma - 0.05)
        slack = 0.5 * (0.1 / slope) / 1.9
        measured = (dark > response(sigma)).mean()
        assert abs(measured - rate) <= four_sigma(rate, n) + slack


# Crops


def draw_boxes(transform, height, width):
    """Return the boxes (views, images, 4) of many images."""
    boxes = [
        [
            transform.crop_box(height, width, min(i, 2), row)
            for i, row in enumerate(transform.draw(SampleKey(index, 1)))
        ]
        for index in range(IMAGES)
    ]
    return np.array(boxes, float).swapaxes(0, 1)


@pytest.mark.parametrize('shape', [(375, 500), (1000, 300)])
@pytest.mark.parametrize('kind', [0, 2])
def test_boxes_are_distributed_as_torchvisions(shape, kind):
    scale = (0.05, 0.25) if kind == 2 else (0.25, 1.0)
    image = torch.empty(3, *shape)
    theirs = np.array(
        [
            RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))
            for _ in range(IMAGES)
        ],
        float,
    )
    ours = draw_boxes(MultiCrop(num_local=1), *shape)[kind]

    def features(boxes):
        top, left, height, width = boxes.T
        return [height * width, width / height, top, left, height, width]

    area, ratio, top, left, height, width = features(ours)
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= shape[0]
    assert (left + width).max() <= shape[1]
    share = area / (shape[0] * shape[1])
    assert share.max() <= scale[1] * 1.03
    assert share.min() >= scale[0] * 0.97
    assert ratio.min() >= 3 / 4 * 0.98
    assert ratio.max() <= 4 / 3 * 1.02
    limit = KS * math.sqrt(2 / IMAGES)
    pairs = zip(features(ours), features(theirs), strict=True)
    for mine, other in pairs:
        assert ks_two(mine, other) < limit


def test_views_of_an_image_have_independent_boxes():
    boxes = draw_boxes(MultiCrop(num_local=2), 400, 400)
    assert boxes.shape == (4, IMAGES, 4)
    for feature in range(4):
        assert_uncorrelated(boxes[..., feature])
