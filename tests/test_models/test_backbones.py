# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SearchVisionTransformer, and mmpretrain's own backbones in DINO and SCFS."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch.testing import assert_close

from mmscfs.checkpoint import find_backbone, load_found

VIT = dict(
    arch=dict(
        embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=32
    ),
    img_size=224,
    patch_size=16,
)
CONVNEXT = dict(
    type='ConvNeXt',
    arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]),
    out_indices=(1, 2, 3),
    gap_before_final_norm=False,
)
SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4]),
    out_indices=(1, 2, 3),
    pad_small_map=True,
)
SEARCH_VIT = dict(type='SearchVisionTransformer', drop_path_rate=0.5, **VIT)


def search_vit(**kwargs):
    """Build one whose class token, norms and biases are not trivial."""
    backbone = MODELS.build(
        dict(type='SearchVisionTransformer', **VIT) | kwargs
    )
    backbone.init_weights()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    backbone.eval()
    return backbone


def plain_vit(backbone, **kwargs):
    """Build mmpretrain's own, with the same weights."""
    plain = MODELS.build(dict(type='VisionTransformer', **VIT) | kwargs)
    plain.load_state_dict(backbone.state_dict(), strict=True)
    plain.eval()
    return plain


def with_backbone(cfg, backbone):
    """Return a config whose necks find the channels of another backbone."""
    for neck in {'neck', 'search_neck'} & set(cfg):
        del cfg[neck]['in_channels']
    return cfg | dict(backbone=backbone)


def train_a_step(cfg):
    """Build a model as the runner does, and train it by one step.

    Checks that all is finite, that every parameter has a gradient, as
    distributed training needs, and that the teacher moves.
    """
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    views = [torch.randn(4, 3, size, size) for size in (64, 64, 32, 32)]
    model.check_fit([tuple(view.shape[1:]) for view in views])
    loss, losses = model.parse_losses(model.loss(views))
    loss.backward()
    assert all(value.isfinite() for value in losses.values())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() for p in trained)
    torch.optim.SGD(trained, lr=0.05).step()
    before = [p.clone() for p in model.teacher.parameters()]
    model.after_step(0.9)
    moved = [
        not torch.equal(*pair)
        for pair in zip(before, model.teacher.parameters(), strict=True)
    ]
    assert sum(moved) > 0.8 * len(moved)
    return model, losses


def test_outputs_are_those_of_mmpretrain():
    backbone = search_vit()
    images = torch.randn(2, 3, 96, 64)
    *maps, token = backbone(images)
    (expected,) = plain_vit(backbone, out_type='cls_token')(images)
    assert_close(token, expected)
    # mmpretrain's norms the last block's output only.
    *inner, last = plain_vit(
        backbone, out_type='featmap', out_indices=[0, 1, 2]
    )(images)
    norm = backbone.ln1
    expected = [
        F.layer_norm(
            layer.movedim(1, -1), (24,), norm.weight, norm.bias, norm.eps
        ).movedim(-1, 1)
        for layer in inner
    ]
    assert_close(maps, [*expected, last])


@pytest.mark.parametrize(
    ('depth', 'out_indices', 'expected'),
    [
        (8, None, [1, 4, 7]),
        (3, None, [0, 1, 2]),
        (3, (0, -1), [0, 2]),
    ],
)
def test_which_blocks_are_outputs(depth, out_indices, expected):
    backbone = MODELS.build(
        dict(
            type='SearchVisionTransformer',
            arch=VIT['arch'] | dict(num_layers=depth),
            img_size=32,
            out_indices=out_indices,
        )
    )
    assert backbone.out_indices == expected
    assert len(backbone(torch.zeros(1, 3, 32, 32))) == len(expected) + 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(with_cls_token=False), 'with_cls_token=False leaves nothing'),
        (dict(out_indices=(0, 1)), r'out_indices=\[0, 1\] of 3 .* end with 2'),
        (dict(out_indices=(2, 0)), r'out_indices=\[2, 0\] of 3 .* ascend'),
        (dict(out_indices=(-4, 2)), r'out_indices=\[-4, 2\] of 3'),
        (
            dict(arch=VIT['arch'] | dict(num_layers=2)),
            r'out_indices=\[-1, 0, 1\] of 2',
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        search_vit(**settings)


def test_scfs_with_a_vision_transformer(scfs_cfg):
    model, losses = train_a_step(with_backbone(scfs_cfg, SEARCH_VIT))
    assert {f'loss_layer{i}_search' for i in (1, 2, 3)} < losses.keys()
    assert model.head.layer_names == ('layer1', 'layer2', 'layer3')
    widths = [p.in_channels for p in model.search_neck.projectors]
    assert (widths, model.neck.in_channels) == ([24, 24, 24], 24)
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(1)
    found = find_backbone(dict(state_dict=model.state_dict()))
    assert found.network == 'teacher'
    for kind in ('VisionTransformer', 'NormedVisionTransformer'):
        evaluated = MODELS.build(dict(type=kind, **VIT))
        load_found(evaluated, found)
        expected = model.teacher.backbone.state_dict()
        assert evaluated.state_dict().keys() == expected.keys()
        for key, value in evaluated.state_dict().items():
            assert torch.equal(value, expected[key])


@pytest.mark.parametrize('kind', ['dino', 'scfs'])
@pytest.mark.parametrize(
    ('backbone', 'widths'),
    [(CONVNEXT, [16, 24, 32]), (SWIN, [24, 48, 96])],
    ids=['ConvNeXt', 'SwinTransformer'],
)
def test_backbones_of_mmpretrain_train_a_step(kind, backbone, widths, request):
    if kind == 'dino':
        backbone = dict(backbone, out_indices=(3,))
    cfg = request.getfixturevalue(f'{kind}_cfg')
    model, _ = train_a_step(with_backbone(cfg, backbone))
    assert model.neck.in_channels == widths[-1]
    if kind == 'scfs':
        projectors = model.search_neck.projectors
        assert [p.in_channels for p in projectors] == widths


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (
            dict(CONVNEXT, gap_before_final_norm=True),
            r'maps \(B, C, H, W\).*gap_before_final_norm=False',
        ),
        (  # windows larger than a local view's map
            dict(SWIN, pad_small_map=False),
            r'SwinTransformer cannot take .*\(3, 96, 96\).*pad_small_map',
        ),
    ],
)
def test_backbones_that_do_not_fit(scfs_cfg, backbone, message):
    model = MODELS.build(with_backbone(scfs_cfg, backbone))
    with pytest.raises(ValueError, match=message):
        model.check_fit([(3, 224, 224), (3, 96, 96)])
