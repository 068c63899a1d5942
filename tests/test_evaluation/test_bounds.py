# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmscfs.evaluation.bank import unit
from mmscfs.evaluation.bounds import find_above


def cosines_of(queries, bank):
    """All cosines, in float64."""
    queries, bank = (x.double() for x in (queries, bank))
    lengths = queries.norm(dim=-1)[:, None] * bank.norm(dim=-1).clamp_min(
        1e-30
    )
    return queries @ bank.T / lengths


def adversarial_features():
    """Features on which products in half precision are wrong by much."""
    features = torch.randn(600, 70)
    common = 50 * torch.randn(70)  # all but the mean is small
    features[:100] += common
    features[100:200] = features[100] + 1e-4 * features[100:200]
    features[200:300] *= 10.0 ** torch.randint(-15, 15, (100, 70))
    features[300:400] = 1 + 2.0**-9  # halfway between two of bfloat16
    features[300:350, ::2] += 2.0**-8
    features[400:410] = 0
    features[410:420] *= 1e-18
    features[420:430] *= 1e18
    return features


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('length', [0, 1])
@pytest.mark.parametrize('rows', [1, 50])
def test_what_is_not_above_is_below_the_limit(dtype, length, rows):
    """Bounds hold for every pair, whatever vector is taken off."""
    bank = adversarial_features()
    queries = bank[torch.randperm(600)[:rows]] + 1e-3 * torch.randn(rows, 70)
    queries = unit(queries)
    centre = length * unit(bank).mean(0).float()
    norms = bank.double().norm(dim=-1).clamp_min(1e-30)
    found = find_above(queries, bank, norms, centre, 20, dtype, 100)
    expected = cosines_of(queries, bank)
    for row, (places, upper) in enumerate(
        zip(found.places, found.upper, strict=True)
    ):
        cosines = expected[row]
        assert len(places.unique()) == len(places)
        assert (cosines[places] <= upper).all()
        outside = torch.ones(600, dtype=torch.bool)
        outside[places] = False
        assert not outside.any() or cosines[outside].max() <= found.limit[row]


def test_bounds_are_near_where_a_mean_is_taken_off():
    """Features that are much alike: a mean makes bounds a hundred times finer.

    So what is found is few, and the neighbours are among them.
    """
    bank = 1 + 0.05 * torch.randn(2000, 256)
    queries = unit(1 + 0.05 * torch.randn(8, 256))
    norms = bank.double().norm(dim=-1)
    centre = unit(bank).mean(0).float()
    arguments = queries, bank, norms
    near = find_above(*arguments, centre, 20, torch.bfloat16, 500)
    far = find_above(*arguments, 0 * centre, 20, torch.bfloat16, 500)
    expected = cosines_of(queries, bank)
    for row in range(8):
        best = expected[row].topk(20).indices
        assert set(best.tolist()) <= set(near.places[row].tolist())
        assert len(near.places[row]) < 200
        excess = near.upper[row] - expected[row][near.places[row]]
        assert excess.max() < 1e-4
        # Without it nearly all are above, which is too many to keep.
        assert far.limit[row] == torch.inf or len(far.places[row]) > 400
