# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import csv

import numpy as np
import pytest

from mmscfs.visualization import draw_embedding, embed, write_points
from mmscfs.visualization.embedding import marker_of
from mmscfs.visualization.sheet import color_of


def clusters(count=3, size=20, channels=8):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), size)
    centers = 5 * np.eye(channels)[:count]
    noise = generator.normal(size=(count * size, channels))
    return centers[labels] + 0.3 * noise, labels


def test_pca_is_that_of_the_directions():
    features, _ = clusters()
    points = embed(features, 'pca')
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit -= unit.mean(0)
    _, _, axes = np.linalg.svd(unit, full_matrices=False)
    expected = unit @ axes[:2].T
    signs = np.sign((expected * points).sum(0))
    np.testing.assert_allclose(points, signs * expected, atol=1e-8)
    # Lengths do not count.
    scaled = embed(features * np.arange(1, 61)[:, None], 'pca')
    np.testing.assert_allclose(np.abs(scaled), np.abs(points), atol=1e-8)


def test_tsne_keeps_neighbors_and_repeats():
    features, labels = clusters()
    points = embed(features)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()
    assert np.array_equal(embed(features), points)


@pytest.mark.parametrize('method', ['tsne', 'pca'])
def test_few_features(method):
    points = embed(np.eye(4), method)
    assert points.shape == (4, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize('method', ['tsne', 'pca'])
def test_a_collapsed_network_is_one_point(method):
    """Features that differ by rounding alone, and their picture."""
    generator = np.random.default_rng(0)
    noise = 1e-7 * generator.standard_normal((60, 32))
    points = embed((1 + noise).astype(np.float32), method)
    assert not points.any()
    picture = draw_embedding(points, np.arange(60) % 3, title='A title')
    colored = np.argwhere(np.ptp(picture, axis=2) > 100)
    assert 10 < len(colored) < 500
    assert np.ptp(colored, axis=0).max() < 20  # px
    # What it means stands below it.
    y, x = colored.mean(0).astype(int)
    assert (picture[y + 12 : y + 40, x - 150 : x + 150] < 100).sum() > 500


@pytest.mark.parametrize(
    ('shape', 'method', 'message'),
    [
        ((2, 5), 'tsne', '2 features of 5 numbers: a plane'),
        ((9, 1), 'pca', '9 features of 1 numbers'),
    ],
)
def test_what_has_no_plane_is_refused(shape, method, message):
    with pytest.raises(ValueError, match=message):
        embed(np.ones(shape), method)


def test_a_hundred_classes_have_a_mark_each():
    marks = {(color_of(i), marker_of(i)) for i in range(100)}
    assert len(marks) == 100
    ten = [(color_of(i), marker_of(i)) for i in range(10)]
    assert [len(set(part)) for part in zip(*ten, strict=True)] == [10, 10]


@pytest.mark.parametrize('count', [1, 130])
def test_the_legend_stays_inside(count):
    points = np.random.default_rng(0).normal(size=(2 * count + 2, 2))
    labels = np.arange(2 * count + 2) % count
    names = ['W' * 40] * count
    picture = draw_embedding(points, labels, names, 'A title', 'about it')
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert edge.min() == 255


def test_points_are_written_as_a_table(tmp_path):
    path = tmp_path / 'points.csv'
    points = np.array([[0.5, -1], [2, 3]])
    write_points(path, points, ['a, b.jpg', 'c.jpg'], [1, 0], ['cat', 'dog'])
    with open(path, newline='') as file:
        assert list(csv.DictReader(file)) == [
            {'image': 'a, b.jpg', 'label': '1', 'class': 'dog'}
            | {'x': '0.5', 'y': '-1'},
            {'image': 'c.jpg', 'label': '0', 'class': 'cat'}
            | {'x': '2', 'y': '3'},
        ]
    write_points(path, points[:1], ['bad\udcff.jpg'])
    assert b'bad\xff.jpg' in path.read_bytes()
    write_points(path, points, ['a', 'c'])
    assert path.read_text() == 'image,label,class,x,y\na,,,0.5,-1\nc,,,2,3\n'
