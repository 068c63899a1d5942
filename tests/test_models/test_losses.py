# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from plain_reference import dino_loss, search_loss
from torch.testing import assert_close

from mmscfs.models import DINOLoss, FeatureSearchLoss
from mmscfs.models.losses import (
    LazyCosineLogits,
    cross_entropy,
    entropy,
    teacher_probabilities,
)

EXACT = dict(rtol=1e-9, atol=0)
GRADIENT = dict(rtol=1e-7, atol=1e-12)


def unit(*shape):
    """Random unit vectors, float64, as a projector gives them."""
    x = torch.randn(*shape, dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True)).requires_grad_()


def lazy(embeddings, prototypes):
    """Cosines of unit vectors and prototypes, as the neck hands them on."""
    lengths = prototypes.detach().square().sum(1).sqrt()
    return LazyCosineLogits(embeddings, prototypes, lengths)


@pytest.mark.parametrize('num_local', [0, 1, 3])
def test_dino_loss_equals_plain_loop(num_local):
    student, teacher = unit(2 + num_local, 3, 7), unit(2, 3, 7).detach()
    center = torch.randn(7, dtype=torch.float64) / 5
    targets = teacher_probabilities(teacher, 0.05, center)
    loss = DINOLoss()(student, targets, 0.1)
    expected = dino_loss(student, teacher, center, 0.1, 0.05)
    assert_close(loss, expected, **EXACT)
    (gradient,) = torch.autograd.grad(loss, student)
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert_close(gradient, expected_gradient, **GRADIENT)


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
    assert_close(loss, expected, **EXACT)
    inputs = (embeddings, weight)
    for ours, plain in zip(
        torch.autograd.grad(loss, inputs),
        torch.autograd.grad(expected, inputs),
        strict=True,
    ):
        assert_close(ours, plain, **GRADIENT)


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


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('searched', [1, 2])
def test_feature_search_loss_equals_plain_loop(searched, weighted):
    student_global, student_local = unit(2, 3, 6), unit(4, 3, 6)
    teacher_global = unit(2, 3, 6).detach()
    teacher_search = unit(searched, 4, 3, 6).detach()
    center = torch.randn(6, dtype=torch.float64) / 5
    pairs = torch.rand(searched, 4, 3) < 0.6 if weighted else None
    terms = FeatureSearchLoss(global_weight=0.3, search_weight=0.7)(
        student_global,
        teacher_probabilities(teacher_global, 0.05, center),
        0.1,
        student_local,
        teacher_probabilities(teacher_search, 0.05),
        None if pairs is None else pairs.float(),
    )
    expected = {
        'global': 0.3
        * dino_loss(student_global, teacher_global, center, 0.1, 0.05),
        'search': 0.7
        * search_loss(student_local, teacher_search, 0.1, 0.05, pairs),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(terms[name], value, **EXACT)
    inputs = (student_global, student_local)
    for ours, plain in zip(
        torch.autograd.grad(sum(terms.values()), inputs),
        torch.autograd.grad(sum(expected.values()), inputs),
        strict=True,
    ):
        assert_close(ours, plain, **GRADIENT)


def test_global_term_alone():
    student, teacher = unit(2, 3, 6), unit(2, 3, 6).detach()
    center = torch.zeros(6, dtype=torch.float64)
    terms = FeatureSearchLoss()(
        student, teacher_probabilities(teacher, 0.05, center), 0.1
    )
    expected = 0.5 * dino_loss(student, teacher, center, 0.1, 0.05)
    assert terms.keys() == {'global'}
    assert_close(terms['global'], expected, **EXACT)


def test_targets_by_hand():
    # softmax((2 ln 2, 0) / 2) = (2, 1) / 3, once 1 is taken off both.
    logits = torch.tensor([2 * torch.log(torch.tensor(2.0)) + 1, 1.0])
    targets = teacher_probabilities(logits, 2.0, torch.ones(2))
    assert_close(targets, torch.tensor([2 / 3, 1 / 3]))


def test_targets_carry_no_gradient():
    assert not teacher_probabilities(unit(2, 3), 0.04).requires_grad


def test_half_precision_is_widened_before_the_softmax():
    logits = torch.randn(2, 3, 5).to(torch.bfloat16)
    targets = teacher_probabilities(logits[:2], 0.04)
    assert targets.dtype == torch.float32
    assert DINOLoss()(logits, targets, 0.1).dtype == torch.float32


def test_entropy_by_hand():
    halves = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert_close(entropy(halves), torch.log(torch.tensor(2.0)) / 2)


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
