# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup import DenseCL
from mmpretrain.registry import MODELS

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


def test_equals_plain_loop():
    query, key, queue = unit(3, 8), unit(3, 8), unit(11, 8).T
    loss = ConsistencyLoss(10.0, 0.04)(query, key, queue)
    expected = 10.0 * plain_loop(query, key, queue, 0.04)
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


class ConsistentDenseCL(DenseCL):
    """The term in another algorithm with a queue."""

    def __init__(self, consistency, **kwargs):
        super().__init__(**kwargs)
        self.consistency = MODELS.build(consistency)
        self.neck.register_forward_hook(self.keep_query)

    def keep_query(self, neck, inputs, outputs):
        self.query = F.normalize(outputs[0])

    def _dequeue_and_enqueue(self, keys):
        self.term = self.consistency(self.query, keys, self.queue.clone())
        super()._dequeue_and_enqueue(keys)

    def loss(self, inputs, data_samples=None, **kwargs):
        losses = super().loss(inputs, data_samples, **kwargs)
        return losses | dict(loss_consistency=self.term)


def test_in_densecl():
    head = dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.2,
    )
    model = ConsistentDenseCL(
        consistency=dict(type='ConsistencyLoss', weight=2, temperature=0.1),
        backbone=dict(
            type='ResNet', depth=18, stem_channels=4, base_channels=4
        ),
        neck=dict(
            type='DenseCLNeck',
            in_channels=32,
            hid_channels=8,
            out_channels=6,
            num_grid=None,
        ),
        head=head,
        queue_len=8,
        feat_dim=6,
    ).double()
    queue = model.queue.clone()
    losses = model.loss([torch.randn(4, 3, 32, 32).double() for _ in range(2)])
    keys = model.queue[:, :4].T
    expected = 2 * plain_loop(model.query, keys, queue, 0.1)
    assert losses['loss_consistency'].item() == pytest.approx(
        expected, rel=1e-9
    )
    losses['loss_consistency'].backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0
