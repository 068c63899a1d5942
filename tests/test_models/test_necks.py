# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmscfs.models import DINONeck, FeatureSearchNeck
from mmscfs.models.search import LazyAttendedMaps


def test_dino_neck_is_the_papers_four_layer_mlp():
    neck = DINONeck(2048)
    assert [
        (m.in_features, m.out_features)
        for m in neck.mlp
        if isinstance(m, nn.Linear)
    ] == [(2048, 2048), (2048, 2048), (2048, 256)]
    assert [type(m) for m in neck.mlp].count(nn.GELU) == 2
    assert neck.prototypes.weight.shape == (65536, 256)


def test_dino_neck_initial_values():
    neck = DINONeck(in_channels=300, hidden_channels=300, num_prototypes=50)
    neck.init_weights()
    for layer in neck.mlp:
        if isinstance(layer, nn.Linear):
            # A normal of 0.02, truncated so far out that nothing changes.
            assert abs(layer.weight.std() / 0.02 - 1) < 0.02
            assert not layer.bias.any()


def test_outputs_are_cosines_whatever_the_lengths():
    neck = DINONeck(8, 8, 4, num_prototypes=6)
    x = torch.randn(5, 8)
    out = neck([x[:2], x[2:]], batch=1).compute().squeeze(1)
    bottleneck = neck.mlp(x)
    expected = torch.cosine_similarity(
        bottleneck[:, None], neck.prototypes.weight[None], dim=-1
    )
    assert_close(out, expected)
    with torch.no_grad():
        neck.prototypes.weight.mul_(3)  # the gain is fixed at 1
    assert_close(neck([x], batch=5).compute()[0], expected)


@pytest.mark.parametrize('kind', ['BN', 'BN1d'])
def test_dino_neck_takes_batch_norm(kind):
    """Also under the name of a 1-D norm."""
    neck = DINONeck(8, 8, 4, 6, norm_cfg=dict(type=kind))
    assert sum(isinstance(m, nn.BatchNorm1d) for m in neck.mlp) == 2
    assert neck([torch.randn(6, 8)], batch=3).shape == (2, 3, 6)


@pytest.mark.parametrize('num_layers', [1, 2, 4])
def test_dino_neck_depth(num_layers):
    neck = DINONeck(8, 8, 4, 6, num_layers=num_layers)
    assert sum(isinstance(m, nn.Linear) for m in neck.mlp) == num_layers
    assert neck([torch.randn(6, 8)], batch=3).shape == (2, 3, 6)


def test_search_projector_is_a_residual_bottleneck():
    neck = FeatureSearchNeck([6, 12], mid_channels=4, out_channels=10)
    maps = [torch.rand(3, 6, 5, 5), torch.rand(3, 12, 3, 3)]
    outputs = neck(maps)
    for out in outputs:
        assert_close(out.norm(dim=-1), torch.ones(3))
    projector = neck.projectors[0]
    assert [m.conv.kernel_size for m in projector.bottleneck] == [
        (1, 1),
        (3, 3),
        (1, 1),
    ]
    # With its last norm's gain at 0 the bottleneck adds nothing.
    nn.init.zeros_(projector.bottleneck[2].bn.weight)
    pooled = maps[0].mean((2, 3))
    fc1, bn1, relu, fc2, bn2 = projector.mlp
    expected = bn2(fc2(relu(bn1(fc1(pooled)))))
    assert_close(projector(maps[0]), nn.functional.normalize(expected, dim=-1))


def test_paper_search_projector_sizes():
    neck = FeatureSearchNeck([512, 1024, 2048])
    shapes = [
        [tuple(p.shape) for p in projector.parameters() if p.ndim > 1]
        for projector in neck.projectors
    ]
    assert shapes == [
        [
            (256, c, 1, 1),
            (256, 256, 3, 3),
            (c, 256, 1, 1),
            (2048, c),
            (256, 2048),
        ]
        for c in (512, 1024, 2048)
    ]


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            dict(type='DINONeck', in_channels=8, num_prototypes=0),
            'num_prototypes=0',
        ),
        (dict(type='DINONeck', in_channels=8, num_layers=0), 'num_layers=0'),
        (dict(type='FeatureSearchNeck', in_channels=[]), r'in_channels=\[\]'),
        (
            dict(type='FeatureSearchNeck', in_channels=[8], mid_channels=0),
            'mid_channels=0',
        ),
        (
            dict(
                type='FeatureSearchNeck',
                in_channels=[8],
                norm_cfg=dict(type='LN'),
            ),
            "'LN'.*must have type",
        ),
    ],
)
def test_wrong_settings_are_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_attended_maps_are_projected_as_if_multiplied_out():
    """The attention commutes with the first convolution."""
    neck = FeatureSearchNeck([6], 4, 8, 5).double().train()
    attention = torch.rand(2, 3, 4, 5, 7, dtype=torch.float64) * 2 - 1
    maps = torch.randn(2, 4, 6, 5, 7, dtype=torch.float64)
    product = torch.stack(
        [
            attention[g, n, b] * maps[g, b]
            for g in range(2)
            for n in range(3)
            for b in range(4)
        ]
    )
    convolved = []
    neck.projectors[0].bottleneck[0].conv.register_forward_hook(
        lambda *values: convolved.append(len(values[2]))
    )
    found = LazyAttendedMaps(attention, maps)
    added = found.add_to_(torch.ones_like(product))
    assert_close(added, 1 + product, rtol=1e-14, atol=1e-14)
    (x,), (expected,) = neck([found]), neck([product])
    assert convolved == [8, 24]  # once for a global map
    assert_close(x, expected, rtol=1e-10, atol=1e-12)
    target = torch.randn_like(x)
    ours, plain = (
        torch.autograd.grad((y * target).sum(), list(neck.parameters()))
        for y in (x, expected)
    )
    for gradient, reference in zip(ours, plain, strict=True):
        assert_close(gradient, reference, rtol=1e-9, atol=1e-10)


def test_attended_maps_stay_channels_last():
    maps = torch.randn(2 * 4, 6, 5, 7).to(memory_format=torch.channels_last)
    found = LazyAttendedMaps(
        torch.randn(2, 3, 4, 5, 7), maps.unflatten(0, (2, 4))
    )
    weighed = found.weigh(maps)
    assert weighed.is_contiguous(memory_format=torch.channels_last)
    # Neither does reading the maps by position copy them.
    positions = found.maps.movedim(2, -1).flatten(2, 3)
    assert positions.data_ptr() == maps.data_ptr()


def test_attended_maps_of_other_channels_are_refused():
    neck = FeatureSearchNeck([6])
    found = LazyAttendedMaps(
        torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1, 5, 2, 2)
    )
    with pytest.raises(ValueError, match='leave model.search_neck.in_chan'):
        neck([found])
