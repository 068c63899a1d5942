# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A backbone starts from a checkpoint completely, or not at all."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from source_networks import (
    VIT_CFG,
    PlainViT,
    assert_equal_state,
    narrow_resnet,
    narrow_state,
    shake,
)

from mmscfs.checkpoint import find_backbone, load_backbone, load_found
from mmscfs.models.shared_heads import SharedResStage


def pretrained(path, **settings):
    return dict(
        type='Pretrained', _scope_='mmscfs', checkpoint=str(path), **settings
    )


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory):
    """A ResNet-18's file and its state."""
    state = narrow_state(18) | {'fc.weight': torch.ones(2, 2)}
    path = tmp_path_factory.mktemp('source') / 'resnet18.pth'
    torch.save(state, path)
    return path, state


# What a config says.


@pytest.mark.parametrize(
    ('kind', 'scope'),
    [('mmdet.ResNet', 'mmpretrain'), ('mmpretrain.ResNet', 'mmdet')],
)
def test_init_cfg_of_a_resnet(resnet18, kind, scope, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmscfs.checkpoint.pretrained.print_log',
        lambda text, **_: lines.append(text),
    )
    init_default_scope(scope)
    path, wanted = resnet18
    backbone = MODELS.build(
        dict(
            type=kind,
            depth=18,
            stem_channels=4,
            base_channels=4,
            zero_init_residual=True,  # must not zero what was loaded
            init_cfg=pretrained(path),
        )
    )
    backbone.init_weights()
    assert_equal_state(backbone, wanted)
    assert backbone.layer1[0].bn2.weight.abs().min() > 0.4
    assert lines == [
        f'{path}: loaded 120 tensors into ResNet (layout: torchvision; '
        'not needed: fc)'
    ]


def test_shared_head_has_a_fresh_extra_norm():
    found = find_backbone(narrow_state(18))
    shared_head = SharedResStage(18, base_channels=4, extra_norm=True)
    summary = load_found(shared_head, found)
    assert_equal_state(shared_head.layer4, found.state, 'layer4.')
    assert (shared_head.norm.weight == 1).all()
    assert summary.endswith(
        'not needed: bn1, conv1, layer1, layer2, layer3; new: norm)'
    )
    found.state.pop('layer4.0.conv1.weight')
    with pytest.raises(ValueError, match=r'1 missing .*layer4\.0\.conv1'):
        load_found(shared_head, found)


# What may differ.


def test_number_of_batches_may_lack(resnet18):
    _, state = resnet18
    old = {k: v for k, v in state.items() if 'num_batches' not in k}
    backbone = narrow_resnet(18)
    summary = load_found(backbone, find_backbone(old))
    assert summary.startswith('loaded 100 tensors into ResNet')
    own = backbone.state_dict()
    for key in own.keys() & old.keys():
        assert torch.equal(own[key], old[key])


def test_vision_transformer_resizes_its_position_embedding():
    source = shake(PlainViT(), seed=1).state_dict()
    backbone = MODELS.build(dict(VIT_CFG, img_size=64))
    load_found(backbone, find_backbone(dict(source)))
    assert backbone.pos_embed.shape == (1, 1 + 8 * 8, 24)
    assert torch.equal(backbone.pos_embed[:, 0], source['pos_embed'][:, 0])
    # A smooth enlargement of the 4 x 4 grid keeps the mean within bounds.
    old, new = source['pos_embed'][0, 1:], backbone.pos_embed[0, 1:]
    torch.testing.assert_close(
        new.mean(0), old.mean(0), rtol=0, atol=0.3 * old.std().item()
    )


# What is refused.


def refusal(module, path, network=None):
    """Return the message; the module must have stayed as it was."""
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(ValueError, match=path.name) as error:
        load_backbone(module, path, network)
    assert_equal_state(module, before)
    return str(error.value)


def saved(tmp_path, content):
    path = tmp_path / 'given.pth'
    torch.save(content, path)
    return path


BLOCKS = {
    18: ('basic blocks [2, 2, 2, 2]', [4, 8, 16, 32]),
    50: ('bottleneck blocks [3, 4, 6, 3]', [16, 32, 64, 128]),
    101: ('bottleneck blocks [3, 4, 23, 3]', [16, 32, 64, 128]),
}


@pytest.mark.parametrize(
    ('given', 'own', 'count'),
    [
        # 17 blocks more, of 3 convolutions and norms: 17 * 3 * 6 tensors.
        (101, 50, '306 left over (e.g. layer3.6.conv1.weight)'),
        (18, 50, 'missing (e.g. layer1.0.conv3.weight)'),
        (50, 18, 'left over (e.g. layer1.0.conv3.weight)'),
    ],
)
def test_wrong_depth(tmp_path, given, own, count):
    path = saved(tmp_path, narrow_state(given))
    text = refusal(narrow_resnet(own), path)
    blocks, channels = BLOCKS[given]
    fit = f'backbone ({blocks}) does not fit the ResNet ({BLOCKS[own][0]})'
    assert f'torchvision {fit}' in text
    assert count in text
    assert text.endswith(
        f'Set depth={given}, stem_channels=4, base_channels=4 there, and '
        f"in_channels={channels} in a detector's FPN"
    )


@pytest.mark.parametrize(
    'own',
    [
        dict(type='mmdet.ResNet', depth=50, base_channels=4, stem_channels=4),
        # Only its blocks know its style.
        dict(type='mmdet.ResLayer', depth=50),
    ],
)
def test_caffe_style(tmp_path, own):
    path = saved(tmp_path, narrow_state(50))
    text = refusal(MODELS.build(dict(own, style='caffe')), path)
    for words in ("style='caffe'", "style='pytorch'", 'bgr_to_rgb=True'):
        assert words in text


def test_vision_transformer_is_no_resnet(resnet18, tmp_path):
    path = saved(tmp_path, PlainViT().state_dict())
    text = refusal(narrow_resnet(18), path)
    assert 'timm backbone does not fit the ResNet (basic blocks' in text
    text = refusal(MODELS.build(VIT_CFG), resnet18[0])
    assert 'does not fit the VisionTransformer: tensors ' in text


def test_position_embedding_that_cannot_be_resized(tmp_path):
    state = shake(PlainViT(), seed=1).state_dict()
    state['pos_embed'] = state['pos_embed'][:, :8]  # 7 patches: no square
    text = refusal(MODELS.build(VIT_CFG), saved(tmp_path, state))
    assert 'VisionTransformer refused the weights' in text
    assert 'pos_embed' in text
