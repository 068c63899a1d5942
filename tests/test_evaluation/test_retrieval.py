# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import pytest
import torch

from mmscfs.evaluation import view_retrieval


@pytest.fixture
def two_views():
    """Noisy views of forty images, similar enough to be found at times."""
    image = torch.randn(40, 5, dtype=torch.float64)
    return tuple(
        image + 0.7 * torch.randn(40, 5, dtype=torch.float64) for _ in range(2)
    )


def plain_retrieval(first, second, ks):
    """Return recall@k with Python's own numbers."""

    def cosine(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / (math.hypot(*a) * math.hypot(*b))

    found = dict.fromkeys(ks, 0)
    for i, query in enumerate(first.tolist()):
        similarities = [cosine(query, row) for row in second.tolist()]
        better = sum(s > similarities[i] for s in similarities)
        for k in ks:
            found[k] += better < k
    return {k: 100 * count / len(first) for k, count in found.items()}


@pytest.mark.parametrize('block', [7, 40])
def test_equals_a_plain_loop(two_views, block):
    ks = (1, 2, 5, 20, 40)
    result = view_retrieval(*two_views, ks=ks, block=block)
    assert result == pytest.approx(plain_retrieval(*two_views, ks), abs=1e-9)
    # Neither trivial: the plain loop had something to tell apart.
    assert 0 < result[1] < result[5] < result[40] == 100


def test_ranks_by_hand():
    first = torch.eye(3)
    second = torch.tensor([[1.0, 0, 0], [0.6, 0, 0.8], [0, 0.6, 0.8]])
    # Row 0 finds itself first. Row 1 sees 0, 0 and 0.6: its own is last of
    # the equals, rank 3. Row 2 sees 0, 0.8 and 0.8: rank 2.
    result = view_retrieval(first, second, ks=(1, 2, 3))
    assert result == pytest.approx({1: 100 / 3, 2: 200 / 3, 3: 100})


@pytest.mark.parametrize('channels', [3, 256])
@pytest.mark.parametrize(('num_images', 'block'), [(33, 10), (1025, 1024)])
def test_constant_features_are_never_found(channels, num_images, block):
    first, second = torch.randn(2, 1, channels).expand(2, num_images, -1)
    expected = {1: 0, 5: 0, num_images: 100}
    ks = tuple(expected)
    assert view_retrieval(first, second, ks, block) == expected
    assert view_retrieval(first, first, ks, block) == expected


@pytest.mark.parametrize('value', [0, math.nan, math.inf])
def test_features_without_a_direction_are_never_found(value):
    broken = torch.full((6, 4), float(value))
    assert view_retrieval(broken, broken) == {1: 0, 5: 0}


@pytest.mark.parametrize('shape', [(5, 4), (6, 3)])
def test_views_of_other_shapes_are_refused(shape):
    with pytest.raises(
        ValueError, match=r'\(6, 4\) and \({}, {}\)'.format(*shape)
    ):
        view_retrieval(torch.ones(6, 4), torch.ones(shape))


@pytest.mark.parametrize('ks', [(0,), (1, 7)])
def test_impossible_ks_are_refused(ks):
    with pytest.raises(ValueError, match='number of images, 6') as error:
        view_retrieval(torch.ones(6, 4), torch.ones(6, 4), ks=ks)
    assert str(ks) in str(error.value)
