# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Images whose views are easily read, and statistics of many views.

Statistics are of 2,000 images and hold within 4 standard deviations, with
fixed seeds.
"""

import math
from itertools import combinations

import cv2
import numpy as np
import torch
from sklearn.datasets import load_sample_image

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey

IMAGES = 2000
# Kolmogorov-Smirnov distance, times sqrt(n), passed once in 16,000 samples:
# as 4 standard deviations.
KS = math.sqrt(-math.log(6.3e-5 / 2) / 2)
SIDE = 16
# The whole image, unchanged.
OFF = dict(
    global_size=SIDE,
    local_size=SIDE,
    num_local=2,
    global_scale=(1, 1),
    local_scale=(1, 1),
    ratio=(1, 1),
    flip_prob=0,
    jitter_prob=0,
    grey_prob=0,
    blur_prob=(0, 0, 0),
    solarize_prob=(0, 0, 0),
)
NO_JITTER = dict(brightness=0, contrast=0, saturation=0, hue=0)


def only(*names, **settings):
    """Return a MultiCrop that does nothing but ``names``, by default."""
    kept = {k: v for k, v in OFF.items() if k not in names}
    return MultiCrop(**(kept | settings))


def plain(blue, green, red):
    """Return an image of one color."""
    return np.full((SIDE, SIDE, 3), (blue, green, red), np.uint8)


def halves(left, right):
    """Return an image of two colors, side by side."""
    image = plain(*left)
    image[:, SIDE // 2 :] = right
    return image


def noise(height=SIDE, width=SIDE):
    generator = np.random.default_rng(5)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height, width):
    """Return a BGR photograph."""
    image = load_sample_image('china.jpg')[..., ::-1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def make_views(transform, image, seed=0, images=IMAGES):
    """Return the views (images, views, 3, S, S) of many images."""
    made = [
        torch.stack(
            transform(dict(img=image, sample_idx=SampleKey(i, seed)))['img']
        )
        for i in range(images)
    ]
    return torch.stack(made).numpy().astype(int)


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
