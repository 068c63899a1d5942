# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SearchVisionTransformer, and mmpretrain's own backbones in DINO and SCFS."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmscfs.checkpoint import find_backbone, load_found

CONFIGS = Path(__file__).parents[2] / 'configs'
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


def algorithm(kind, backbone):
    """Return a config of DINO or SCFS that names no channels."""
    cfg = dict(
        type=kind,
        backbone=backbone,
        neck=dict(
            type='DINONeck',
            hidden_channels=16,
            bottleneck_channels=8,
            num_prototypes=12,
        ),
        head=dict(type=f'{kind}Head'),
    )
    if kind == 'SCFS':
        cfg['search_neck'] = dict(
            type='FeatureSearchNeck',
            mid_channels=4,
            hidden_channels=16,
            out_channels=10,
        )
    return cfg


def train_a_step(cfg):
    """Build a model as the runner does, and train it by one step.

    Checks that all is finite, that every parameter has a gradient, as
    distributed training asks for, and that the teacher follows the student.
    """
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    before = [p.clone() for p in model.teacher.parameters()]
    views = [torch.randn(4, 3, size, size) for size in (64, 64, 32, 32)]
    model.check_fit([tuple(view.shape[1:]) for view in views])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    without = []
    optimizer.register_step_pre_hook(
        lambda *_: without.extend(
            name
            for name, p in model.named_parameters()
            if p.requires_grad and p.grad is None
        )
    )
    wrapper = OptimWrapper(optimizer)
    # The views as mmpretrain's preprocessor takes them.
    data = dict(inputs=views, data_samples=None)
    losses = model.train_step(data, wrapper)
    assert without == []
    assert all(value.isfinite().all() for value in losses.values())
    assert all(p.isfinite().all() for p in model.parameters())
    model.after_step(0.9)
    student = dict(model.named_parameters())
    moved = 0
    teacher = model.teacher.named_parameters()
    for (name, parameter), old in zip(teacher, before, strict=True):
        assert_close(parameter, 0.9 * old + 0.1 * student[name])
        moved += not torch.equal(parameter, old)
    assert moved > 0.8 * len(before)
    return model, losses


def test_position_embeddings_of_local_views():
    backbone = search_vit()
    seen = []
    backbone.drop_after_pos.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    # Tokens without content: what is left is the embedding.
    nn.init.zeros_(backbone.patch_embed.projection.weight)
    nn.init.zeros_(backbone.patch_embed.projection.bias)
    nn.init.zeros_(backbone.cls_token)
    backbone(torch.randn(2, 3, 96, 96))
    backbone(torch.randn(2, 3, 224, 224))
    local, whole = seen
    own = backbone.pos_embed.detach()
    grid = own[0, 1:].reshape(14, 14, 24).permute(2, 0, 1)[None]
    small = F.interpolate(
        grid, size=(6, 6), mode='bicubic', align_corners=False
    )
    expected = torch.cat([own[0, :1], small[0].flatten(1).T])
    assert_close(local, expected.expand(2, 37, 24))
    assert torch.equal(whole, own.expand(2, 197, 24))


def test_a_marked_patch_lies_where_it_is_in_the_image():
    backbone = search_vit()
    # No exchange between the tokens.
    for block in backbone.layers:
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.attn.proj.bias)
    image = torch.randn(1, 3, 64, 96)
    marked = image.clone()
    marked[0, :, 16:32, 64:80] += 1  # row 1, column 4 of 4 x 6 patches
    *maps, token = backbone(image)
    *marked_maps, marked_token = backbone(marked)
    assert [layer.shape for layer in maps] == [(1, 24, 4, 6)] * 3
    for before, after in zip(maps, marked_maps, strict=True):
        changed = (before != after).any(1)[0]
        assert changed.nonzero().tolist() == [[1, 4]]
    assert torch.equal(token, marked_token)


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
        (12, None, [3, 7, 11]),
        (8, None, [1, 4, 7]),
        (3, None, [0, 1, 2]),
        (3, (1, 2), [1, 2]),
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
        (dict(out_indices=(0, 3)), r'out_indices=\[0, 3\] of 3'),
        (dict(out_indices=(-4, 2)), r'out_indices=\[-4, 2\] of 3'),
        (dict(out_indices=()), r'out_indices=\[\] of 3'),
        (
            dict(arch=VIT['arch'] | dict(num_layers=2)),
            r'out_indices=\[-1, 0, 1\] of 2',
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        search_vit(**settings)


def test_scfs_with_a_vision_transformer():
    model, losses = train_a_step(algorithm('SCFS', dict(SEARCH_VIT)))
    assert {f'loss_layer{i}_search' for i in (1, 2, 3)} < losses.keys()
    assert model.head.layer_names == ('layer1', 'layer2', 'layer3')
    widths = [p.in_channels for p in model.search_neck.projectors]
    assert (widths, model.neck.in_channels) == ([24, 24, 24], 24)
    # Stochastic depth is the student's alone.
    teacher, student = (
        [
            module.drop_prob
            for module in network.modules()
            if hasattr(module, 'drop_prob')
        ]
        for network in (model.teacher, model.backbone)
    )
    assert max(student) == 0.5
    assert len(teacher) == len(student)
    assert not any(teacher)

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


@pytest.mark.parametrize('kind', ['DINO', 'SCFS'])
@pytest.mark.parametrize(
    'backbone', [CONVNEXT, SWIN], ids=lambda backbone: backbone['type']
)
def test_backbones_of_mmpretrain_train_a_step(kind, backbone):
    if kind == 'DINO':
        backbone = dict(backbone, out_indices=(3,))
    model, _ = train_a_step(algorithm(kind, backbone))
    widths = dict(ConvNeXt=[16, 24, 32], SwinTransformer=[24, 48, 96])
    expected = widths[backbone['type']]
    assert model.neck.in_channels == expected[-1]
    if kind == 'SCFS':
        projectors = model.search_neck.projectors
        assert [p.in_channels for p in projectors] == expected


def test_vectors_are_no_maps_to_search():
    backbone = dict(CONVNEXT, gap_before_final_norm=True)
    model = MODELS.build(algorithm('SCFS', backbone))
    message = r'maps \(B, C, H, W\).*gap_before_final_norm=False'
    with pytest.raises(ValueError, match=message):
        model.check_fit([(3, 64, 64)])
    # DINO projects them as they are.
    train_a_step(algorithm('DINO', dict(backbone, out_indices=(3,))))


def test_windows_larger_than_a_local_views_map():
    backbone = dict(SWIN, pad_small_map=False)
    model = MODELS.build(algorithm('SCFS', backbone))
    message = r'SwinTransformer cannot take .*\(3, 96, 96\).*pad_small_map'
    with pytest.raises(ValueError, match=message):
        model.check_fit([(3, 224, 224), (3, 96, 96)])
