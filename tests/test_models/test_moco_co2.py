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


@pytest.mark.parametrize(
    ('neck', 'layout', 'mixed'),
    [
        (MOCO_V1, torch.channels_last, False),
        (MOCO_V2, torch.contiguous_format, True),
    ],
)
def test_contrast_queue_and_key_encoder_are_mocos(neck, layout, mixed):
    ours, moco = build(neck, consistency=TERM), build(neck, type='MoCo')
    views = [x.contiguous(memory_format=layout) for x in two_views()]
    results = []
    for model in (ours, moco):
        torch.manual_seed(1)  # the order in which keys are encoded
        with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
            results.append(model.loss(views, None))
    contrast, expected = results[0]['loss_contrast'], results[1]['loss']
    assert torch.equal(contrast, expected)
    # The term and its figure are widened.
    assert results[0]['loss_consistency'].dtype == torch.float32
    assert results[0]['key_entropy'].dtype == torch.float32
    state = moco.state_dict()
    assert ours.state_dict().keys() == state.keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert ours.queue_ptr.item() == 4
    # And the gradient of the term by itself is MoCo's.
    contrast.backward(), expected.backward()
    weights = zip(ours.parameters(), moco.parameters(), strict=True)
    for mine, theirs in weights:
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)


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
    # The two losses alone are summed.
    total, log = model.parse_losses(losses)
    parts = losses['loss_contrast'] + losses['loss_consistency']
    assert_close(total, parts)
    figures = losses['contrast_accuracy'], losses['key_entropy']
    assert len(log) == 1 + 2 + len(figures)
    assert not any(figure.requires_grad for figure in figures)


@pytest.mark.parametrize(
    ('views', 'found'),
    [
        (two_views() + two_views(), '4 views'),
        (torch.zeros(2, 3, 32, 32), 'Tensor'),
    ],
)
def test_refuses_other_views(views, found):
    with pytest.raises(ValueError, match=f'got {found}: set num_local=0'):
        build().loss(views, None)


@pytest.mark.parametrize(
    ('queue_len', 'processes', 'message'),
    [
        (18, 1, '=18 must be a multiple of the 4 images .*set it to 16'),
        (2, 1, '=2 must be a multiple of the 4 images .*set it to 4'),
        (4, 2, 'the 8 images of a step .*=4 on each of 2 .*set it to 8'),
    ],
)
def test_refuses_a_queue_of_broken_steps(
    queue_len, processes, message, monkeypatch
):
    monkeypatch.setattr(moco_co2, 'get_world_size', lambda: processes)
    model = build(queue_len=queue_len)
    with pytest.raises(ValueError, match=f'queue_len.*{message}'):
        model.loss(two_views(), None)
    assert model.encoder_k.steps.item() == 0  # nothing has moved


def test_evaluations_take_the_query_encoder():
    state = build().state_dict()
    for key, value in state.items():
        value.fill_(key.startswith('backbone.'))
    found = find_backbone(dict(state_dict=state, meta=dict(epoch=1)))
    assert (found.layout, found.network) == ('mmpretrain', None)
    assert set(found.heads) == {'neck', 'encoder_k', 'queue', 'queue_ptr'}
    assert all(value.all() for value in found.state.values())
