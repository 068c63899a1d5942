# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every layout gives the network that it was saved from."""

import pytest
import torch
from mmengine.registry import MODELS
from source_networks import (
    VIT_CFG,
    PlainViT,
    assert_equal_state,
    dino_release,
    lightly_dino,
    lightly_module,
    mmpretrain,
    moco,
    moco_v3,
    narrow_resnet,
    narrow_state,
    prefixed,
    resnet_features,
    scfs_release,
    sequence,
    shake,
    solo_learn,
    swav,
    torchvision_resnet,
    vissl,
)

from mmscfs.checkpoint import (
    find_backbone,
    load_backbone,
    resnet_settings,
)


def build(cfg):
    """Build a module in evaluation mode (mmdet's eval() returns None)."""
    module = MODELS.build(cfg)
    module.eval()
    return module


PLAIN = 'torchvision; not needed: fc'
ONE = torch.ones(2, 2)


def under(prefix, **more):
    """Return what saves a network's tensors below a prefix, and others."""
    return lambda own, _: prefixed(prefix, own) | more


RESNET_LAYOUTS = {
    'lightly DINO': (
        lightly_dino,
        'lightly, teacher; not needed: student_backbone, student_head',
    ),
    'lightly module': (lightly_module, 'lightly; not needed: projection_head'),
    'lightly, named': (
        lambda own, _: dict(resnet18_parameters=sequence(own)),
        'lightly',
    ),
    'VISSL': (vissl, 'torchvision'),
    'solo-learn': (
        solo_learn,
        'mmpretrain; not needed: momentum_backbone, projector',
    ),
    'SwAV release': (
        swav,
        'torchvision; not needed: projection_head, prototypes',
    ),
    'DDP, compiled': (under('_orig_mod.module.'), PLAIN),
    'FSDP': (
        lambda own, _: {
            k.replace('.0.', '.0._fsdp_wrapped_module.'): v
            for k, v in prefixed('_fsdp_wrapped_module.', own).items()
        },
        PLAIN,
    ),
    'PixPro release': (
        lambda own, other: dict(
            epoch=3,
            model=prefixed('module.encoder_k.', other)
            | prefixed('module.encoder.', own),
        ),
        'encoder; not needed: encoder_k, fc',
    ),
    'BYOL': (
        lambda own, other: (
            prefixed('target_encoder.net.', other)
            | prefixed('online_encoder.net.', own)
        ),
        'online_encoder.net; not needed: target_encoder, fc',
    ),
    'moving average alone': (
        lambda own, _: dict(epoch=3, model_ema=own),
        'model_ema; not needed: fc',
    ),
    'networks by name': (
        lambda own, other: dict(acc=0.9, momentum=other, net=own),
        'net; not needed: momentum, fc',
    ),
    'SCFS release': (
        scfs_release,
        'SCFS release, teacher; not needed: head, layer2_head, layer4_head',
    ),
    'MoCo': (
        moco,
        'MoCo v2 release; not needed: encoder_k, queue, queue_ptr, fc',
    ),
    'mmpretrain': (
        mmpretrain,
        'mmpretrain; not needed: head, data_preprocessor',
    ),
}
VIT_LAYOUTS = {
    'timm': (
        lambda own, _: own | {'head.weight': torch.ones(2, 2)},
        'timm; not needed: head',
    ),
    'DINO release': (dino_release, 'DINO release, teacher; not needed: head'),
    'MoCo v3': (
        moco_v3,
        'MoCo v3 release; not needed: momentum_encoder, predictor, head',
    ),
}


def assert_same_features(given, wanted):
    assert len(given) == len(wanted)
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert other.std() > 0.01  # there is something to compare


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64)


@pytest.fixture(scope='module')
def states():
    """The network that is looked for, and another, with a head each."""
    head = {'fc.weight': ONE, 'fc.bias': ONE[0]}
    return [narrow_state(18, seed) | head for seed in (1, 2)]


@pytest.mark.parametrize('name', RESNET_LAYOUTS)
def test_resnet_layout(states, tmp_path, name):
    make, words = RESNET_LAYOUTS[name]
    path = tmp_path / 'source.pth'
    torch.save(make(*states), path)
    backbone = narrow_resnet(18)
    # 20 convolutions, each with a weight and the 5 tensors of its BatchNorm.
    assert load_backbone(backbone, path) == (
        f'{path}: loaded 120 tensors into ResNet (layout: {words})'
    )
    assert_equal_state(backbone, states[0])


@pytest.mark.parametrize('make', [scfs_release, dino_release])
def test_student_of_a_release(states, tmp_path, make):
    path = tmp_path / 'source.pth'
    torch.save(make(*states[::-1]), path)
    backbone = narrow_resnet(18)
    assert 'release, student' in load_backbone(backbone, path, 'student')
    assert_equal_state(backbone, states[0])


@pytest.mark.parametrize('network', [None, 'student'])
def test_raw_checkpoint_of_ours(scfs_cfg, tmp_path, network):
    model = build(dict(scfs_cfg, _scope_='mmpretrain'))
    source = shake(model, seed=1).state_dict()
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=source, meta=dict(epoch=1)), path)
    backbone = narrow_resnet(18, stem_channels=8, base_channels=8)
    summary = load_backbone(backbone, path, network)
    assert f'(layout: mmscfs, {network or "teacher"}; not needed: ' in summary
    prefix = 'backbone.' if network else 'teacher.backbone.'
    assert_equal_state(backbone, source, prefix)


@torch.no_grad()
@pytest.mark.parametrize(
    ('name', 'layer_scale'),
    [('timm', True), *((name, False) for name in VIT_LAYOUTS)],
)
def test_vit_layout(tmp_path, name, layer_scale):
    make, words = VIT_LAYOUTS[name]
    nets = [shake(PlainViT(layer_scale), seed) for seed in (1, 2)]
    path = tmp_path / 'source.pth'
    torch.save(make(*(net.state_dict() for net in nets)), path)
    cfg = dict(VIT_CFG, layer_scale_init_value=1e-5 if layer_scale else 0.0)
    backbone = build(cfg)

    # 2 tokens, 2 of the patches, 2 of the last norm; in each of the 3 blocks
    # 6 layers with weight and bias, and the 2 scales.
    tensors = 6 + 3 * (12 + 2 * layer_scale)
    assert load_backbone(backbone, path) == (
        f'{path}: loaded {tensors} tensors into VisionTransformer '
        f'(layout: {words})'
    )
    images = torch.randn(2, 3, 32, 32)
    assert_same_features(backbone(images), nets[0](images))
    assert not torch.allclose(backbone(images)[-1], nets[1](images)[-1])


@torch.no_grad()
def test_c4_splits_a_resnet50(images, tmp_path):
    net = torchvision_resnet(50, seed=1)
    path = tmp_path / 'resnet50.pth'
    torch.save(net.state_dict(), path)
    backbone = build(
        dict(
            type='mmdet.ResNet',
            depth=50,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),
        )
    )
    shared_head = build(dict(type='mmdet.ResLayer', depth=50))

    # Six tensors a convolution: 53 in all, 10 of them in layer4.
    assert load_backbone(backbone, path) == (
        f'{path}: loaded 258 tensors into ResNet (layout: torchvision; '
        'not needed: layer4, fc)'
    )
    assert load_backbone(shared_head, path) == (
        f'{path}: loaded 60 tensors into ResLayer (layout: torchvision; '
        'not needed: bn1, conv1, layer1, layer2, layer3, fc)'
    )
    source = net.state_dict()
    own = shared_head.state_dict()
    assert own.keys() == {key for key in source if key.startswith('layer4.')}
    features = backbone(images)
    features = [*features, shared_head(features[-1])]
    assert_same_features(features, resnet_features(net, images))


@pytest.mark.parametrize('make', [mmpretrain, moco, lambda own, _: own])
def test_teacher_where_there_is_none(states, make):
    with pytest.raises(ValueError, match='this checkpoint has no teacher'):
        find_backbone(make(*states), 'teacher')
    assert find_backbone(make(*states), 'student').network is None
    with pytest.raises(ValueError, match="network='momentum' must be"):
        find_backbone(make(*states), 'momentum')


def test_two_backbones_are_not_chosen_between(states):
    first, second = states
    with pytest.raises(ValueError, match=r'has 2 backbones \(a\., b\.\)'):
        find_backbone(dict(a=first, b=second, epoch=3))


def test_names_of_a_wrapping_module_stay(states):
    """As mmpretrain's TIMMBackbone, which loads them, has them."""
    state = prefixed('backbone.timm_model.', states[0])
    found = find_backbone(dict(state_dict=state, meta=dict(epoch=3)))
    assert 'timm_model.layer1.0.conv1.weight' in found.state


def test_names_of_another_library(tmp_path):
    """Hugging Face's transformers: no depth or width would help."""
    name = 'resnet.embedder.embedder.convolution.weight'
    torch.save({name: torch.ones(64, 3, 7, 7)}, tmp_path / 'model.pth')
    backbone = narrow_resnet(18)
    words = rf'left over \(e\.g\. {name}\)\. No name is one of the ResNet'
    with pytest.raises(ValueError, match=words):
        load_backbone(backbone, tmp_path / 'model.pth')


@pytest.mark.parametrize(
    ('keys', 'part'),
    [
        (['backbone.conv1.weight', 'bbox_head.cls_convs.0.w'], 'bbox_head'),
        (['backbone.conv1.weight', 'neck.fpn_convs.0.w'], 'feature pyramid'),
        # torchvision's and detectron2's
        (['backbone.body.conv1.weight', 'roi_heads.mask.w'], 'roi_heads'),
        # a semi-supervised detector: mmdet's SoftTeacher
        (['teacher.backbone.conv1.weight', 'teacher.rpn_head.w'], 'rpn_head'),
    ],
)
def test_detector_is_refused(keys, part):
    checkpoint = dict(state_dict=dict.fromkeys(keys, torch.ones(2, 2)))
    with pytest.raises(ValueError, match=rf'a detector \({part}\).*load_fr'):
        find_backbone(checkpoint)


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [
        ({}, r'no weights \(its entries: none\)'),
        (
            dict(optimizer=dict(state={0: dict(m=torch.ones(2))}), epoch=3),
            r'no weights \(its entries: optimizer, epoch\)',
        ),
        (
            {'fc.weight': torch.ones(2, 2), 'fc.bias': torch.ones(2)},
            r'no backbone in this checkpoint \(parts: fc\)',
        ),
        (dict(mean=torch.ones(3)), r'no backbone .* \(parts: mean\)'),
        (dict(teacher=1, student=2), 'holds a int in place of tensors'),
    ],
)
def test_checkpoint_without_backbone(checkpoint, message):
    with pytest.raises(ValueError, match=message):
        find_backbone(checkpoint)


NARROW = dict(type='mmpretrain.ResNet', stem_channels=4, base_channels=8)


@pytest.mark.parametrize(
    ('cfg', 'channels'),
    [
        (dict(NARROW, depth=18), [8, 16, 32, 64]),
        (dict(NARROW, depth=50), [32, 64, 128, 256]),
        (dict(type='mmpretrain.ResNeXt', depth=50, base_channels=32), None),
        (dict(type='mmpretrain.ResNetV1d', depth=18, base_channels=8), None),
        (VIT_CFG, None),
    ],
)
def test_a_resnets_settings_are_those_that_built_it(cfg, channels):
    """Other networks have none."""
    found = resnet_settings(build(cfg).state_dict())
    settings = {k: v for k, v in cfg.items() if k != 'type'}
    assert found == (channels and dict(settings, channels=channels))


@pytest.mark.parametrize('name', ['conv1', 'layer1.0.conv1', 'layer1.0.conv2'])
def test_a_damaged_resnet_has_no_settings(name):
    state = build(dict(NARROW, depth=18)).state_dict()
    assert resnet_settings(state | {f'{name}.weight': torch.ones(())}) is None
    del state[f'{name}.weight']
    assert resnet_settings(state) is None
