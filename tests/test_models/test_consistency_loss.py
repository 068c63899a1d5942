# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import pytest
import torch
import torch.nn.functional as F

from mmscfs.models import ConsistencyLoss


def unit(rows, channels):
    """Random unit vectors (rows, channels), float64."""
    return F.normalize(torch.randn(rows, channels, dtype=torch.float64))


def plain_loop(query, key, queue, temperature):
    """Return the mean of the symmetric divergences, number by number."""

    def distribution(vector):
        powers = [
            math.exp(
                sum(
                    vector[c].item() * queue[c, i].item()
                    for c in range(len(vector))
                )
                / temperature
            )
            for i in range(queue.shape[1])
        ]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for q, p in zip(query, key, strict=True):
        q, p = distribution(q), distribution(p)
        for a, b in zip(p, q, strict=True):
            total += 0.5 * a * math.log(a / b) + 0.5 * b * math.log(b / a)
    return total / len(query)


def three_negatives():
    """Unit vectors whose distributions at temperature 0.5 are fractions.

    q . n = (ln 2 / 2, 0, 0), so Q ~ (2, 1, 1): Q = (1/2, 1/4, 1/4).
    p . n = (0, 0, ln 4 / 2), so P ~ (1, 1, 4): P = (1/6, 1/6, 4/6).
    """
    query = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    key = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    seen = [(math.log(2) / 2, 0.0), (0.0, 0.0), (0.0, math.log(4) / 2)]
    columns = [(a, b, math.sqrt(1 - a**2 - b**2)) for a, b in seen]
    queue = torch.tensor(columns, dtype=torch.float64).T
    return query, key, queue


def test_three_negatives_by_hand():
    # KL(P||Q) = 1/6 ln(1/3) + 1/6 ln(2/3) + 4/6 ln(8/3)
    #          = (-2/6 - 4/6) ln 3 + (1/6 + 12/6) ln 2
    #          = 13/6 ln 2 - ln 3
    # KL(Q||P) = 1/2 ln 3 + 1/4 ln(3/2) + 1/4 ln(3/8)
    #          = (1/2 + 2/4) ln 3 - (1/4 + 3/4) ln 2
    #          = ln 3 - ln 2
    # L_con    = (13/6 - 1) / 2 ln 2 = 7/12 ln 2
    query, key, queue = three_negatives()
    expected = 7 / 12 * math.log(2)
    loss = ConsistencyLoss(weight=1, temperature=0.5)(query, key, queue)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    # A second image whose views agree halves the mean; the weight is 10.
    loss = ConsistencyLoss(weight=10, temperature=0.5)(
        torch.cat((query, key)), torch.cat((key, key)), queue
    )
    assert loss.item() == pytest.approx(5 * expected, rel=1e-12)


@pytest.mark.parametrize(
    ('weight', 'temperature'), [(10.0, 0.04), (0.3, 0.05)]
)
def test_equals_plain_loop(weight, temperature):
    query, key, queue = unit(3, 8), unit(3, 8), unit(11, 8).T
    loss = ConsistencyLoss(weight, temperature)(query, key, queue)
    expected = weight * plain_loop(query, key, queue, temperature)
    assert expected > 1
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_only_the_query_learns_and_by_its_gradient():
    """Finite differences agree."""
    query, key, queue = (
        x.detach().requires_grad_()
        for x in (unit(2, 5), unit(2, 5), unit(5, 7))
    )
    loss = ConsistencyLoss(weight=10, temperature=0.2)
    assert torch.autograd.gradcheck(
        lambda q: loss(q, key.detach(), queue.detach()), query
    )
    loss(query, key, queue).backward()
    assert query.grad.norm() > 1
    assert key.grad is None
    assert queue.grad is None


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nothing_to_learn_where_query_and_key_agree(dtype):
    query, queue = unit(4, 8).to(dtype), unit(50, 8).T.to(dtype)
    query.requires_grad_()
    loss = ConsistencyLoss(10, 0.04)(query, query.clone(), queue)
    loss.backward()
    assert loss.item() == 0
    assert not query.grad.any()


def test_opposite_views_stay_finite():
    """Though each gives the other's only likely negative exactly 0."""
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    queue = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    loss = ConsistencyLoss(1, 0.005)(query, -query, queue)
    loss.backward()
    # Each distribution is all on one of two logits that differ by 400.
    assert loss.item() == pytest.approx(400)
    assert query.grad.isfinite().all()


def test_half_precision_is_widened_first():
    x = unit(3, 16).bfloat16(), unit(3, 16).bfloat16(), unit(16, 9).bfloat16()
    loss = ConsistencyLoss()
    expected = loss(*(part.float() for part in x))
    plain = 0.3 * plain_loop(*(part.double() for part in x), 0.05)
    assert expected.item() == pytest.approx(plain, rel=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(loss(*x), expected)
        assert torch.equal(loss(*(part.float() for part in x)), expected)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(weight=-1), 'weight=-1 must be >= 0'),
        (dict(weight=math.nan), 'weight=nan must be >= 0'),
        (dict(temperature=0), 'temperature=0 must be > 0'),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyLoss(**settings)


@pytest.mark.parametrize(
    'shapes',
    [
        ((4, 8), (4, 8), (16, 8)),
        ((4, 8), (2, 8), (8, 16)),
        ((8,), (8,), (8, 16)),
    ],
)
def test_refuses_shapes(shapes):
    with pytest.raises(ValueError, match=r'queue \(C, K\), got'):
        ConsistencyLoss()(*map(torch.zeros, shapes))
