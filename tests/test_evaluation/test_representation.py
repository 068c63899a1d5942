# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
import torch

from mmscfs.evaluation import (
    DSETerms,
    alpha_req,
    dse_terms,
    effective_rank,
    kmeans,
    lidar,
    normalized_dse,
    rankme,
)

EPSILON = 1e-7


def with_spectrum(values, rows, centered=False):
    """Features (rows, len(values)) of given singular values."""
    left = torch.randn(rows, len(values), dtype=torch.float64)
    if centered:
        left -= left.mean(0)
    left, _ = torch.linalg.qr(left)
    right, _ = torch.linalg.qr(torch.randn(len(values), len(values)).double())
    return left * torch.as_tensor(values).double() @ right


def entropy_rank(values):
    """Eqs. 1 and 2 of RankMe, one value at a time."""
    shares = [value / sum(values) + EPSILON for value in values]
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.mark.parametrize('k', [1, 3, 16])
def test_rankme_of_k_equal_singular_values_is_k(k):
    features = with_spectrum([5.0] * k + [0.0] * (16 - k), rows=40)
    assert rankme(features) == pytest.approx(k, rel=5e-5)
    assert rankme(1000 * features) == pytest.approx(rankme(features))


def test_rankme_equals_a_plain_loop():
    features = torch.randn(20, 30) * torch.arange(1, 31)
    matrix = features.double().numpy()
    values = np.sqrt(np.abs(np.linalg.eigvalsh(matrix @ matrix.T)))
    assert rankme(features) == pytest.approx(entropy_rank(values), rel=1e-9)


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.5])
@pytest.mark.parametrize('ranks', [(6, 100), (1, 10), (11, 50)])
def test_alpha_of_a_power_law_is_its_exponent(alpha, ranks):
    values = torch.arange(1, 61).double() ** (-alpha / 2)
    features = with_spectrum(values, rows=80, centered=True)
    # The mean of the images does not count.
    assert alpha_req(features + 3, ranks) == pytest.approx(alpha, rel=1e-9)


def test_alpha_equals_a_plain_fit():
    features = torch.randn(70, 40)
    values = np.linalg.eigvalsh(np.cov(features.double().numpy().T))[::-1]
    x, y = np.log(np.arange(6, 41)), np.log(values[5:])
    expected = -np.polyfit(x, y, 1)[0]
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


def clusters(distance, spread, per_cluster=2):
    """Two clusters at +-distance on the first axis, +-spread on the second.

    Returns:
        Tensor: (2, per_cluster, 3).
    """
    points = torch.zeros(2, per_cluster, 3, dtype=torch.float64)
    points[0, :, 0], points[1, :, 0] = distance, -distance
    points[:, ::2, 1], points[:, 1::2, 1] = spread, -spread
    return points


@pytest.mark.parametrize(('distance', 'spread'), [(1, 0.1), (5, 2.0)])
def test_lidar_of_two_clusters_is_one(distance, spread):
    # One direction tells two images apart, however far they are.
    points = clusters(distance, spread, 4)
    assert lidar(points) == pytest.approx(1, rel=1e-5)


def test_lidar_of_known_spreads():
    # Images at +-d on each of three axes, views at +-w on the same axis: the
    # eigenvalues are d^2 / (w^2 + delta) over the number of axes each.
    distances, spreads, delta = [1.0, 2, 4], [0.5, 0.5, 1], 0.01
    features = torch.zeros(6, 6, 3, dtype=torch.float64)
    for i, (d, w) in enumerate(zip(distances, spreads, strict=True)):
        features[2 * i, :, i], features[2 * i + 1, :, i] = d, -d
        features[:, 2 * i, i] += w
        features[:, 2 * i + 1, i] -= w
    values = [
        (d**2 / 3) / (w**2 / 3 + delta)
        for d, w in zip(distances, spreads, strict=True)
    ]
    assert lidar(features, delta) == pytest.approx(
        entropy_rank(values), rel=1e-9
    )


def test_kmeans_finds_clusters_in_each_set():
    centers = torch.tensor(
        [[[0.0, 0], [9, 0], [0, 9]], [[5, 5], [0, 0], [9, 0]]]
    )
    truth = torch.randint(3, (2, 60))
    points = centers.gather(1, truth[..., None].expand(-1, -1, 2)).double()
    points = points + 0.1 * torch.randn_like(points)
    for seed in range(5):
        found, labels = kmeans(points, 3, seed)
        for i in range(2):
            pairs = {*zip(truth[i].tolist(), labels[i].tolist(), strict=True)}
            assert len(pairs) == 3
            for true, label in pairs:
                members = points[i][truth[i] == true]
                assert torch.allclose(found[i, label], members.mean(0))
    again = kmeans(points, 3, seed)
    assert torch.equal(again[0], found)


@pytest.mark.parametrize(('distance', 'spread'), [(1.0, 0.1), (5.0, 2.0)])
def test_dse_terms_of_two_clusters(distance, spread):
    # Each of two images has half of each cluster.
    points = clusters(distance, spread, 8).view(2, 2, 4, 3)
    points = points.transpose(0, 1).reshape(2, 8, 3)
    terms = dse_terms(points, group=2, group_classes=2, image_classes=2)
    unit = math.hypot(distance, spread)
    assert terms.inter == pytest.approx(
        math.hypot(2 * distance, spread) / unit
    )
    # One singular value, spread sqrt(n): n is 8 in a group, 4 in an image.
    radius = (math.sqrt(8 / 7) + math.sqrt(4 / 3)) / 2
    assert terms.intra == pytest.approx(spread * radius / unit)
    assert terms.dse == pytest.approx(terms.inter - terms.intra + terms.dim)


def plain_terms(patches, truth, group):
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
    for start in range(0, images - group + 1, group):
        points = patches[start : start + group].reshape(-1, channels)
        classes = truth[start : start + group].reshape(-1)
        centers = {c: points[classes == c].mean(0) for c in {*classes}}
        for point, own in zip(points, classes, strict=True):
            nearest.append(
                min(
                    np.linalg.norm(point - center)
                    for label, center in centers.items()
                    if label != own
                )
            )
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


@pytest.mark.parametrize('images', [4, 5])  # one is in no group
def test_dse_terms_equal_plain_loops(images):
    centers = 20 * torch.eye(3, 6, dtype=torch.float64)
    truth = torch.arange(3).repeat(images, 4)
    patches = centers[truth] + torch.randn(images, 12, 6).double()
    terms = dse_terms(patches, group=2, group_classes=3, image_classes=3)
    expected = plain_terms(patches.numpy(), truth.numpy(), 2)
    assert terms == pytest.approx(expected, rel=1e-9)


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
    expected = normalized_dse(terms)
    collapsed = DSETerms(*[math.nan] * 3)
    found = normalized_dse([terms[0], collapsed, *terms[1:]])
    assert math.isnan(found.pop(1))
    assert found == pytest.approx(expected)
    # What is the same in all decides nothing.
    assert normalized_dse([DSETerms(0.1, 0.2, 0.3)] * 3) == [0, 0, 0]


def test_collapsed_features_have_no_figures():
    same = torch.ones(9, 4, 12)
    assert rankme(same[:, 0]) == pytest.approx(1, rel=1e-4)
    assert math.isnan(rankme(torch.zeros(9, 4)))
    assert math.isnan(effective_rank(torch.zeros(3)))
    assert math.isnan(alpha_req(same[:, 0]))
    assert math.isnan(lidar(same))
    terms = dse_terms(same, group=4, group_classes=2)
    assert all(map(math.isnan, terms))


@pytest.mark.parametrize(
    ('function', 'shape', 'settings', 'message'),
    [
        (rankme, (3, 4, 5), {}, r'rankme: .* shape \(N, C\), got \(3, 4, 5\)'),
        (rankme, (1, 4), {}, 'rankme: needs features of at least 2 images'),
        (alpha_req, (7, 20), {}, r'ranks=\(6, 100\) .* more than 7 images'),
        (alpha_req, (20, 6), {}, 'more than 6 channels'),
        (alpha_req, (20, 9), dict(ranks=(0, 5)), r'ranks=\(0, 5\)'),
        (lidar, (5, 1, 4), {}, 'at least two views of an image, got 1'),
        (lidar, (5, 2, 4), dict(delta=0), 'delta=0 > 0'),
        (dse_terms, (7, 9, 4), {}, 'at least 8 images, got 7'),
        (dse_terms, (8, 2, 4), {}, 'k=24 .* number of points, 16'),
        (dse_terms, (12, 2, 4), dict(group=12), 'k=3 .* points, 2'),
    ],
)
def test_wrong_features_are_refused(function, shape, settings, message):
    with pytest.raises(ValueError, match=message):
        function(torch.randn(shape), **settings)


@pytest.mark.parametrize('function', [rankme, alpha_req, lidar, dse_terms])
def test_diverged_features_are_refused(function):
    features = torch.randn(
        (20, 10) if function in (rankme, alpha_req) else (20, 4, 10)
    )
    features[3, ..., 2] = math.nan
    with pytest.raises(ValueError, match='are not finite .* has diverged'):
        function(features)


def test_two_checkpoints_have_no_dse():
    with pytest.raises(ValueError, match='got 2 checkpoints'):
        normalized_dse([DSETerms(1, 2, 3), DSETerms(2, 1, 3)])
