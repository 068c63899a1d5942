# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the step's plain loops in test_selfsup.py do not reach."""

import pytest
import torch
from plain_reference import dino_loss
from torch.testing import assert_close

from mmscfs.models import DINOLoss, FeatureSearchLoss
from mmscfs.models.losses import (
    LazyCosineLogits,
    cross_entropy,
    teacher_probabilities,
)


def unit(*shape):
    """Random unit vectors, float64, as a projector gives them."""
    x = torch.randn(*shape, dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True)).requires_grad_()


def lazy(embeddings, prototypes):
    """Cosines of unit vectors and prototypes, as the neck hands them on."""
    lengths = prototypes.detach().square().sum(1).sqrt()
    return LazyCosineLogits(embeddings, prototypes, lengths)


@pytest.mark.parametrize('numbers', [1, 40, 10**6])
def test_cosine_logits_in_chunks_equal_plain_loop(monkeypatch, numbers):
    """Chunks of 1, 5 (with a shorter last) and all of the 12 prototypes."""
    monkeypatch.setitem(cross_entropy.CHUNK_NUMBERS, 'cpu', numbers)
    embeddings, teacher = unit(4, 2, 6), unit(2, 2, 12).detach()
    weight = torch.randn(12, 6, dtype=torch.float64).requires_grad_()
    center = torch.randn(12, dtype=torch.float64) / 5
    loss = DINOLoss()(
        lazy(embeddings, weight),
        teacher_probabilities(teacher, 0.05, center),
        0.1,
    )
    lengths = weight.square().sum(1).sqrt()
    cosines = embeddings @ (weight / lengths[:, None]).T
    expected = dino_loss(cosines, teacher, center, 0.1, 0.05)
    assert_close(loss, expected, rtol=1e-9, atol=0)
    inputs = (embeddings, weight)
    for ours, plain in zip(
        torch.autograd.grad(loss, inputs),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        assert_close(ours, plain, rtol=1e-7, atol=1e-12)


def test_likelihood_of_every_pair_has_its_own_gradient():
    embeddings, targets = unit(3, 2, 4), unit(2, 2, 7).detach().softmax(-1)
    weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)

    def likelihood(embeddings, weight):
        logits = lazy(embeddings, weight)
        return logits.log_likelihood(targets, 0.5)

    assert torch.autograd.gradcheck(likelihood, (embeddings, weight))


def test_cosine_logits_of_large_lengths_and_temperatures_stay_finite():
    """exp(1 / 0.001) overflows, and half precision's lengths would."""
    weight = 3e4 * torch.eye(4)
    targets = torch.eye(4).expand(2, 4, 4)
    logits = lazy(torch.eye(4).expand(2, 4, 4), weight)
    # Every image has its own prototype, so the student is right.
    assert_close(logits.log_likelihood(targets, 0.001), torch.zeros(2, 2))


def test_frozen_prototypes_get_no_gradient():
    embeddings, weight = unit(2, 2, 4), torch.randn(3, 4, dtype=torch.float64)
    targets = torch.full((2, 2, 3), 1 / 3, dtype=torch.float64)
    loss = DINOLoss()(lazy(embeddings, weight), targets, 0.1)
    loss.backward()
    assert embeddings.grad.any()
    assert weight.grad is None


def test_autocast_reaches_the_products_alone():
    """Forward and backward agree, and differ from fp32 as bf16 does."""
    embeddings = torch.nn.functional.normalize(torch.randn(3, 2, 16), dim=-1)
    weight = torch.randn(30, 16)
    targets = torch.randn(2, 2, 30).softmax(-1)
    results = []
    for enabled in (False, True):
        inputs = [
            embeddings.clone().requires_grad_(),
            weight.clone().requires_grad_(),
        ]
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            loss = DINOLoss()(lazy(*inputs), targets, 0.1)
        loss.backward()
        assert loss.dtype == torch.float32
        results.append([loss.detach(), *(x.grad for x in inputs)])
    for full, half in zip(*results, strict=True):
        assert not torch.equal(full, half)
        assert (full - half).norm() < 0.02 * full.norm()


@pytest.mark.parametrize('length', [1e-7, 1.0, 1e4])
def test_prototypes_of_any_length_train_in_fp16(length):
    """Turning one is what counts; divided by its length, half overflows."""
    embeddings = torch.nn.functional.normalize(torch.randn(3, 2, 16), dim=-1)
    directions = torch.nn.functional.normalize(torch.randn(30, 16), dim=-1)
    targets = torch.randn(2, 2, 30).mul(3).softmax(-1)
    results = []
    for half, size in ((False, 1.0), (True, length)):
        inputs = [
            embeddings.clone().requires_grad_(),
            (size * directions).requires_grad_(),
        ]
        with torch.autocast('cpu', torch.float16, enabled=half):
            loss = DINOLoss()(lazy(*inputs), targets, 0.1)
        (1024 * loss).backward()  # as a loss scale does
        results.append([loss.detach(), *(x.grad for x in inputs)])
    full, half = results
    half[2] *= length
    for ours, expected in zip(half, full, strict=True):
        assert (ours - expected).norm() < 2e-3 * expected.norm()


def test_targets_under_autocast_are_those_of_full_precision():
    """A temperature of 0.04 magnifies what bf16 rounds off to 1 %."""
    embeddings = torch.nn.functional.normalize(torch.randn(2, 8, 64), dim=-1)
    near = embeddings.flatten(0, 1).repeat(12, 1)
    prototypes = near + torch.randn(192, 64) / 10
    with torch.autocast('cpu', torch.bfloat16):
        logits = lazy(embeddings, prototypes).compute()
    targets = teacher_probabilities(logits, 0.04).double()
    units = prototypes.double() / prototypes.double().norm(dim=1)[:, None]
    weights = torch.exp((embeddings.double() @ units.T) / 0.04)
    expected = weights / weights.sum(-1, keepdim=True)
    distance = (targets - expected).abs().sum(-1) / 2  # total variation
    assert distance.max() < 1e-5


def test_half_precision_is_widened_before_the_softmax():
    logits = torch.randn(2, 3, 5).to(torch.bfloat16)
    targets = teacher_probabilities(logits[:2], 0.04)
    assert targets.dtype == torch.float32
    assert DINOLoss()(logits, targets, 0.1).dtype == torch.float32


@pytest.mark.parametrize(
    ('student', 'targets'),
    [((3, 2, 5), (1, 2, 5)), ((1, 2, 5), (2, 2, 5)), ((3, 2, 5), (2, 2, 4))],
)
def test_dino_loss_refuses_shapes(student, targets):
    with pytest.raises(ValueError, match='DINOLoss needs'):
        DINOLoss()(torch.zeros(student), torch.zeros(targets), 0.1)


def test_feature_search_loss_refuses_shapes_and_weights():
    x = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match='search_targets'):
        FeatureSearchLoss()(x, x, 0.1, x, torch.zeros(2, 3, 3, 4))
    with pytest.raises(ValueError, match='search_weight=-1'):
        FeatureSearchLoss(search_weight=-1)
