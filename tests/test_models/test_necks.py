# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
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
@pytest.mark.parametrize('num_layers', [1, 2, 4])
def test_dino_neck_depth_and_batch_norm(num_layers, kind):
    """Also under the name of a 1-D norm."""
    norm_cfg = dict(type=kind)
    neck = DINONeck(8, 8, 4, 6, num_layers=num_layers, norm_cfg=norm_cfg)
    count = [type(m) for m in neck.mlp].count
    assert count(nn.Linear) == num_layers
    assert count(nn.BatchNorm1d) == count(nn.GELU) == num_layers - 1
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
    ('neck', 'settings', 'message'),
    [
        (DINONeck, dict(in_channels=8, num_prototypes=0), 'prototypes=0 must'),
        (DINONeck, dict(in_channels=8, num_layers=0), 'num_layers=0 must'),
        (FeatureSearchNeck, dict(in_channels=[]), r'in_channels=\[\] must'),
        (FeatureSearchNeck, dict(in_channels=[8, 0]), 'in_channels=0 must'),
        (
            FeatureSearchNeck,
            dict(in_channels=[8], mid_channels=0),
            'mid_channels=0 must',
        ),
        (
            FeatureSearchNeck,
            dict(in_channels=[8], norm_cfg=dict(type='LN')),
            "'LN'.*must have type",
        ),
    ],
)
def test_wrong_settings_are_named(neck, settings, message):
    with pytest.raises(ValueError, match=message):
        neck(**settings)


def test_attended_maps_are_convolved_once_for_a_global_map():
    """The attention commutes with the first convolution."""
    neck = FeatureSearchNeck([6], 4, 8, 5).double()
    attention = torch.rand(2, 3, 4, 5, 7, dtype=torch.float64) * 2 - 1
    maps = torch.randn(2, 4, 6, 5, 7, dtype=torch.float64)
    product = torch.einsum('gnbyx,gbcyx->gnbcyx', attention, maps)
    convolved = []
    neck.projectors[0].bottleneck[0].conv.register_forward_hook(
        lambda *values: convolved.append(len(values[2]))
    )
    (found,) = neck([LazyAttendedMaps(attention, maps)])
    (expected,) = neck([product])
    assert convolved == [8, 24]
    assert_close(found, expected, rtol=1e-10, atol=1e-12)


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
