# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from torch.testing import assert_close

from mmscfs.checkpoint import find_backbone
from mmscfs.models.selfsup import moco_co2

TERM = dict(type='ConsistencyLoss', weight=2.0, temperature=0.1)
MOCO_V1 = dict(
    type='LinearNeck',
    in_channels=32,
    out_channels=6,
    gap_dim=2,
    norm_cfg=None,
)
MOCO_V2 = dict(
    type='MoCoV2Neck', in_channels=32, hid_channels=16, out_channels=6
)


def build(neck=MOCO_V2, **settings):
    """Build a tiny model; its weights and queue depend on nothing else."""
    torch.manual_seed(0)
    cfg = dict(
        type='MoCoCO2',
        backbone=dict(
            type='ResNet', depth=18, stem_channels=4, base_channels=4
        ),
        neck=neck,
        head=dict(
            type='ContrastiveHead',
            loss=dict(type='CrossEntropyLoss'),
            temperature=0.2,
        ),
        queue_len=16,
        feat_dim=6,
    )
    return MODELS.build(cfg | settings)


def two_views(seed=0):
    """Two views of four images: the second is the first, and noise."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(4, 3, 32, 32, generator=generator)
    noise = torch.randn(4, 3, 32, 32, generator=generator)
    return [first, first + noise / 2]


def steps(model, num, term='loss'):
    """Take steps of SGD; return the losses of each."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    history = []
    for i in range(num):
        torch.manual_seed(i)  # the order in which keys are encoded
        losses = model.loss(two_views(i), None)
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if term in k).backward()
        optimizer.step()
        history.append(losses)
    return history


def assert_same_state(model, other):
    state = other.state_dict()
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize('neck', [MOCO_V1, MOCO_V2])
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_contrast_queue_and_key_encoder_are_mocos(neck, layout):
    ours, moco = build(neck, consistency=TERM), build(neck, type='MoCo')
    views = [x.contiguous(memory_format=layout) for x in two_views()]
    results = []
    for model in (ours, moco):
        torch.manual_seed(1)
        results.append(model.loss(views, None))
    assert torch.equal(results[0]['loss_contrast'], results[1]['loss'])
    assert_same_state(ours, moco)
    assert ours.queue_ptr.item() == 4
    assert ours.encoder_k.steps.item() == 1
    # And the gradient of the term by itself is MoCo's.
    for loss in (results[0]['loss_contrast'], results[1]['loss']):
        loss.backward()
    weights = zip(ours.parameters(), moco.parameters(), strict=True)
    for mine, theirs in weights:
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)


def test_weight_zero_trains_as_moco():
    ours = build(consistency=dict(type='ConsistencyLoss', weight=0))
    moco = build(type='MoCo')
    for mine, theirs in zip(steps(ours, 6), steps(moco, 6), strict=True):
        assert torch.equal(mine['loss_contrast'], theirs['loss'])
    assert_same_state(ours, moco)
    assert ours.queue_ptr.item() == 6 * 4 % 16


def test_mixed_precision_leaves_moco_alone_and_widens_the_term():
    ours, moco = build(consistency=TERM), build(type='MoCo')
    results = []
    for model in (ours, moco):
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16):
            results.append(model.loss(two_views(), None))
    assert torch.equal(results[0]['loss_contrast'], results[1]['loss'])
    assert results[0]['loss_consistency'].dtype == torch.float32
    assert results[0]['key_entropy'].dtype == torch.float32
    assert_same_state(ours, moco)


def test_the_term_alone_trains_the_query_encoder():
    model = build(consistency=TERM)
    keys = [p.clone() for p in model.encoder_k.parameters()]
    loss = model.loss(two_views(), None)['loss_consistency']
    loss.backward()
    for part in (model.backbone, model.neck):
        for name, parameter in part.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
    for before, parameter in zip(
        keys, model.encoder_k.parameters(), strict=True
    ):
        assert parameter.grad is None
        assert torch.equal(parameter, before)  # the first move is a copy
    assert model.queue.grad is None


def test_the_term_brings_query_and_key_together():
    """Steps on it alone halve what it measures; none does without it."""
    history = steps(build(consistency=TERM), 40, term='loss_consistency')
    first, last = (
        sum(losses['loss_consistency'].item() for losses in part)
        for part in (history[:5], history[-5:])
    )
    assert last < first / 2


def test_terms_and_figures_equal_plain_numbers():
    model = build(consistency=TERM)
    seen = []
    term = model.consistency
    model.consistency = torch.nn.Module()  # records what the term is given
    model.consistency.forward = lambda *x: seen.append(x) or term(*x)
    model.consistency.log_probabilities = term.log_probabilities
    before = model.queue.numpy().copy()
    losses = model.loss(two_views(), None)
    query, key, queue = (x.detach().numpy() for x in seen[0])
    np.testing.assert_array_equal(queue, before)
    np.testing.assert_array_equal(model.queue[:, :4].T.numpy(), key)
    for vectors in (query, key, queue.T):
        np.testing.assert_allclose(
            np.linalg.norm(vectors, axis=1), 1, rtol=1e-6
        )
    hits, info_nce, key_entropy, divergence = 0, 0.0, 0.0, 0.0
    for q, k in zip(query, key, strict=True):
        near, far = float(q @ k), q @ queue
        hits += near > far.max()
        powers = np.exp(np.array([near, *far]) / 0.2)
        info_nce -= math.log(powers[0] / powers.sum())
        p, other = (np.exp(x @ queue / 0.1) for x in (k, q))
        p, other = p / p.sum(), other / other.sum()
        key_entropy -= (p * np.log(p)).sum()
        divergence += (p * np.log(p / other)).sum()
        divergence += (other * np.log(other / p)).sum()
    assert 0 < hits < 4
    assert losses['contrast_accuracy'].item() == 100 * hits / 4
    assert losses['loss_contrast'].item() == pytest.approx(info_nce / 4)
    assert losses['key_entropy'].item() == pytest.approx(key_entropy / 4)
    expected = 2 * divergence / 2 / 4
    assert losses['loss_consistency'].item() == pytest.approx(expected, 1e-4)


def test_only_the_two_losses_are_summed():
    model = build(consistency=TERM)
    losses = model.loss(two_views(), None)
    total, log = model.parse_losses(losses)
    parts = losses['loss_contrast'] + losses['loss_consistency']
    assert_close(total, parts)
    assert set(log) == {
        'loss',
        'loss_contrast',
        'loss_consistency',
        'contrast_accuracy',
        'key_entropy',
    }
    figures = losses['contrast_accuracy'], losses['key_entropy']
    assert not any(figure.requires_grad for figure in figures)


def test_term_is_that_of_moco_v2_by_default():
    term = build().consistency
    assert (term.weight, term.temperature) == (0.3, 0.05)


@pytest.mark.parametrize('num', [1, 3])
def test_refuses_other_numbers_of_views(num):
    views = (two_views() * 2)[:num]
    with pytest.raises(ValueError, match=f'two views .* got {num} views.*'):
        build().loss(views, None)


def test_refuses_one_tensor_for_two_views():
    with pytest.raises(ValueError, match='got Tensor: set num_local=0'):
        build().loss(torch.zeros(2, 3, 32, 32), None)


@pytest.mark.parametrize(('queue_len', 'valid'), [(18, 16), (2, 4)])
def test_refuses_a_queue_of_broken_batches(queue_len, valid):
    model = build(queue_len=queue_len)
    before = model.encoder_k.steps.item()
    with pytest.raises(
        ValueError,
        match=f'queue_len={queue_len} must be a multiple of the 4 images '
        rf'.*set it to {valid}',
    ):
        model.loss(two_views(), None)
    assert model.encoder_k.steps.item() == before  # nothing has moved


def test_queue_must_fit_the_images_of_all_processes(monkeypatch):
    model = build(queue_len=4)
    monkeypatch.setattr(moco_co2, 'get_world_size', lambda: 2)
    with pytest.raises(
        ValueError, match='the 8 images of a step .*=4 on each'
    ):
        model.loss(two_views(), None)


def test_evaluations_take_the_query_encoder():
    model = build()
    steps(model, 2)
    found = find_backbone(
        dict(state_dict=model.state_dict(), meta=dict(epoch=1))
    )
    assert (found.layout, found.network) == ('mmpretrain', None)
    assert set(found.heads) == {'neck', 'encoder_k', 'queue', 'queue_ptr'}
    wanted = model.backbone.state_dict()
    assert found.state.keys() == wanted.keys()
    for key, value in found.state.items():
        assert torch.equal(value, wanted[key]), key
    other = model.encoder_k.module[0].conv1.weight
    assert not torch.equal(found.state['conv1.weight'], other)
