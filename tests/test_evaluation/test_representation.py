# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
import torch

from mmscfs.evaluation import (
    DSETerms,
    alpha_req,
    dse_terms,
    lidar,
    normalized_dse,
    rankme,
)


def entropy_rank(values):
    """Eqs. 1 and 2 of RankMe, one value at a time."""
    shares = [value / sum(values) + 1e-7 for value in values]
    return math.exp(-sum(share * math.log(share) for share in shares))


def test_rankme_equals_a_plain_loop():
    features = torch.randn(20, 30) * torch.arange(1, 31)
    matrix = features.double().numpy()
    values = np.sqrt(np.abs(np.linalg.eigvalsh(matrix @ matrix.T)))
    assert rankme(features) == pytest.approx(entropy_rank(values), rel=1e-9)


@pytest.mark.parametrize(('rows', 'last'), [(70, 40), (30, 29)])
def test_alpha_equals_a_plain_fit(rows, last):
    features = torch.randn(rows, 40)
    values = np.linalg.eigvalsh(np.cov(features.double().numpy().T))[::-1]
    rank = np.arange(4, last + 1)
    # polyfit's weights are of the errors, not of their squares.
    y, weights = np.log(values[3:last]), rank**-0.5
    expected = -np.polyfit(np.log(rank), y, 1, w=weights)[0]
    assert alpha_req(features) == pytest.approx(expected, rel=1e-9)


def plain_lidar(features, delta):
    """LiDAR by sums over images and views, and the definition's roots."""
    images, views, channels = features.shape
    means = [sum(image) / views for image in features]
    mean = sum(means) / images
    between = sum(np.outer(m - mean, m - mean) for m in means) / images
    within = delta * np.eye(channels)
    for image, own in zip(features, means, strict=True):
        for view in image:
            within += np.outer(view - own, view - own) / (images * views)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    found = np.linalg.eigvalsh(root @ between @ root)
    return entropy_rank(np.clip(found, 0, None))


@pytest.mark.parametrize(('images', 'channels'), [(30, 7), (6, 20)])
def test_lidar_equals_a_plain_loop(images, channels):
    features = torch.randn(images, 1, channels) + 0.3 * torch.randn(
        images, 4, channels
    )
    assert lidar(features, delta=1e-2) == pytest.approx(
        plain_lidar(features.double().numpy(), 1e-2), rel=1e-9
    )


def known_patches(images, scale=0.1):
    """Patches of 24 far classes: three in each image, in groups of eight.

    Returns:
        tuple: Patches (images, 12, 30), and their classes (images, 12).
    """
    first = torch.arange(images)[:, None] % 8 * 3
    truth = first + torch.arange(12) % 3
    centers = 20 * torch.eye(24, 30, dtype=torch.float64)
    noise = torch.randn(images, 12, 30, dtype=torch.float64)
    return centers[truth] + scale * noise, truth


def plain_terms(patches, truth):
    """The terms by loops, for classes that are known."""
    images, count, channels = patches.shape
    mean = patches.reshape(-1, channels).mean(0)
    unit = np.mean([np.linalg.norm(p - mean) for i in patches for p in i])

    def radii(points, classes):
        for label in sorted({*classes}):
            own = points[classes == label]
            values = np.linalg.svd(own - own.mean(0), compute_uv=False)
            yield sum(values) / max(len(own) - 1, channels) ** 0.5

    nearest, of_groups, of_images = [], [], []
    for start in range(0, images - 7, 8):
        points = patches[start : start + 8].reshape(-1, channels)
        classes = truth[start : start + 8].reshape(-1)
        centers = {c: points[classes == c].mean(0) for c in {*classes}}
        for point, own in zip(points, classes, strict=True):
            others = [c for label, c in centers.items() if label != own]
            nearest.append(min(np.linalg.norm(point - c) for c in others))
        of_groups += radii(points, classes)
    for points, classes in zip(patches, truth, strict=True):
        of_images += radii(points, classes)
    ranks = []
    for n in range(count):
        rows = [patches[i, (n + i) % count] for i in range(images)]
        values = np.linalg.svd(np.array(rows), compute_uv=False)
        ranks.append(entropy_rank(values) / min(images, channels))
    intra = (np.mean(of_groups) + np.mean(of_images)) / 2
    return np.mean(nearest) / unit, intra / unit, np.mean(ranks)


@pytest.mark.parametrize('images', [16, 17])  # one is in no group
def test_dse_terms_equal_plain_loops(images):
    patches, truth = known_patches(images)
    terms = dse_terms(patches)
    expected = plain_terms(patches.numpy(), truth.numpy())
    assert terms == pytest.approx(expected, rel=1e-9)
    assert terms.dse == pytest.approx(expected[0] - expected[1] + expected[2])
    assert dse_terms(patches) == terms


def test_normalized_dse_equals_numpy_and_ignores_scale():
    values = np.random.default_rng(0).normal(size=(5, 3))
    scores = (values - values.mean(0)) / values.std(0)
    separation = scores[:, 0] - scores[:, 1]
    expected = separation + separation.std() * scores[:, 2]
    found = normalized_dse([DSETerms(*row) for row in values])
    assert found == pytest.approx(expected, rel=1e-9)
    scaled = [DSETerms(2 * a + 1, 3 * b, 0.1 * c) for a, b, c in values]
    assert normalized_dse(scaled) == pytest.approx(expected)


def test_a_collapsed_checkpoint_does_not_count():
    terms = [DSETerms(1, 2, 0.5), DSETerms(2, 2, 0.3), DSETerms(4, 2, 0.1)]
    collapsed = DSETerms(*[math.nan] * 3)
    found = normalized_dse([terms[0], collapsed, *terms[1:]])
    assert math.isnan(found.pop(1))
    assert found == pytest.approx(normalized_dse(terms))
    # What is the same in all decides nothing, and two are too few.
    assert normalized_dse([DSETerms(0.1, 0.2, 0.3)] * 3) == [0, 0, 0]
    assert all(map(math.isnan, normalized_dse([collapsed, *terms[:2]])))


def test_collapsed_features_have_no_figures():
    same = torch.full((9, 4, 12), 0.3)
    assert rankme(same[:, 0]) == pytest.approx(1, rel=1e-4)
    assert math.isnan(rankme(torch.zeros(9, 4)))
    assert math.isnan(alpha_req(torch.ones(9, 12)))
    assert math.isnan(alpha_req(torch.randn(5, 12)))  # four directions
    assert math.isnan(lidar(torch.ones(9, 4, 12)))
    assert all(map(math.isnan, dse_terms(same)))


@pytest.mark.parametrize(
    ('function', 'shape', 'message'),
    [
        (rankme, (3, 4, 5), r'rankme: .* \(N, C\) .* got \(3, 4, 5\)'),
        (rankme, (1, 4), 'rankme: .* at least 2 images'),
        (alpha_req, (5,), r'alpha_req: .* got \(5,\)'),
        (lidar, (5, 1, 4), 'at least two views of an image, got 1'),
        (dse_terms, (7, 9, 4), 'dse_terms: .* at least 8 images'),
        (dse_terms, (8, 2, 4), 'n_samples=16 should be >= n_clusters=24'),
    ],
)
def test_wrong_features_are_refused(function, shape, message):
    with pytest.raises(ValueError, match=message):
        function(torch.randn(shape))


@pytest.mark.parametrize('function', [rankme, alpha_req, lidar, dse_terms])
def test_diverged_features_are_refused(function):
    is_flat = function in (rankme, alpha_req)
    features = torch.randn((20, 10) if is_flat else (20, 4, 10))
    features[3, ..., 2] = math.nan
    with pytest.raises(ValueError, match='are not finite .* has diverged'):
        function(features)
