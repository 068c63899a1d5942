# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""LinearProbe, FrozenBackboneHook, and what a ViT's probe consists of."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapper
from mmpretrain.registry import HOOKS, MODELS
from mmpretrain.structures import DataSample
from torch import nn

RESNET = dict(
    type='ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    drop_path_rate=0.5,
)
VIT = dict(
    arch=dict(
        embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32
    ),
    img_size=32,
    patch_size=16,
    drop_rate=0.5,
)


@MODELS.register_module()
class Stubborn(BaseModule):
    """A backbone that does not care for the mode it is set to."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return (self.norm(self.conv(x)),)


def probe_cfg(kind, **kwargs):
    """A probe on 32 px images, of 3 classes."""
    cfg = dict(
        type='LinearProbe',
        backbone=dict(RESNET),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
    )
    if kind == 'vit':
        cfg['backbone'] = dict(
            type='NormedVisionTransformer', out_indices=[1, 2], **VIT
        )
        cfg['neck'] = dict(type='ConcatNeck')
        cfg['head']['in_channels'] = 32
    if kind == 'stubborn':
        cfg['backbone'] = dict(type='Stubborn')
        cfg['head']['in_channels'] = 4
    return cfg | kwargs


def build(kind, **kwargs):
    model = MODELS.build(probe_cfg(kind, **kwargs))
    model.init_weights()
    return model


def batch():
    return dict(
        inputs=torch.randn(6, 3, 32, 32),
        data_samples=[DataSample().set_gt_label(i % 3) for i in range(6)],
    )


def optimizer_of(model):
    # All of it: momentum and decay would move what has a gradient.
    return OptimWrapper(
        torch.optim.SGD(
            model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1
        )
    )


def snapshot(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def moved(module, before):
    """Return the names of the parameters and buffers that changed."""
    return {
        key
        for key, value in module.state_dict().items()
        if not torch.equal(value, before[key])
    }


@pytest.mark.parametrize('kind', ['resnet', 'vit', 'stubborn'])
def test_training_moves_the_head_only(kind):
    model = build(kind)
    before = snapshot(model)
    optimizer = optimizer_of(model)
    assert any('num_batches_tracked' in k for k in before) == (kind != 'vit')
    for _ in range(3):
        model.train()
        model.train_step(batch(), optimizer)
    assert moved(model, before) == {'head.fc.weight', 'head.fc.bias'}
    assert all(v.grad is None for v in model.backbone.parameters())


def test_training_features_are_those_of_evaluation():
    model = build('resnet')
    images = torch.randn(4, 3, 32, 32)
    model.backbone.layer4[1].bn2.running_var.fill_(7.0)
    model.eval()
    expected = model.backbone(images)[0].mean(dim=(2, 3))
    model.train()
    for _ in range(2):  # drop path would make each another
        torch.testing.assert_close(model.extract_feat(images)[0], expected)
    features = model.extract_feat(images, stage='backbone')[0]
    assert features.shape == (4, 64, 1, 1)
    assert not features.requires_grad
    logits = model(images)
    assert logits.requires_grad
    expected = expected @ model.head.fc.weight.T + model.head.fc.bias
    torch.testing.assert_close(logits, expected)


def test_a_neck_learns():
    model = build('resnet')
    model.neck.gain = nn.Parameter(torch.ones(()))
    model.neck.register_forward_hook(
        lambda neck, _, outputs: tuple(neck.gain * x for x in outputs)
    )
    assert model.train() is model
    assert model.neck.training
    model.train_step(batch(), optimizer_of(model))
    assert model.neck.gain != 1


def test_concat_neck():
    a, b = torch.randn(2, 3), torch.randn(2, 5)
    (joined,) = MODELS.build(dict(type='ConcatNeck'))((a, b))
    assert joined.tolist() == [
        [*x, *y] for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


def test_class_token_beside_the_mean_of_the_patch_tokens():
    """Of the last block, behind the final norm, as DINO evaluates a ViT-B."""
    settings = dict(VIT, type='NormedVisionTransformer', out_type='raw')
    raw = MODELS.build(settings)
    raw.eval()
    raw.ln1.weight.data.fill_(0)
    raw.ln1.bias.data.uniform_(-1, 1)
    (tokens,) = raw(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(tokens, raw.ln1.bias.expand(2, 5, 16))
    tokens = torch.randn(2, 5, 16)
    (found,) = MODELS.build(dict(type='ClassPatchNeck'))((None, tokens))
    mean = sum(tokens[:, i] for i in (1, 2, 3, 4)) / 4
    torch.testing.assert_close(found, torch.cat([tokens[:, 0], mean], 1))


# FrozenBackboneHook


def start_hook(model):
    """A hook that has seen the start of a run of this model."""
    hook = HOOKS.build(dict(type='FrozenBackboneHook'))
    runner = SimpleNamespace(model=model, iter=5)
    hook.before_train(runner)
    return hook, runner


def test_the_hook_accepts_a_probe():
    model = build('resnet').eval()
    hook, runner = start_hook(model)
    model.train_step(batch(), optimizer_of(model))
    hook.after_train_epoch(runner)
    hook.after_train(runner)


@pytest.mark.parametrize(
    ('backbone', 'fixed', 'message'),
    [
        (RESNET, False, "conv1.weight requires a.*.type='LinearProbe'"),
        # As mmpretrain freezes: weights fixed, statistics not.
        (RESNET, True, r'model\.backbone is in train mode'),
        # Stages frozen by the backbone itself are not enough either.
        (RESNET | dict(frozen_stages=3), False, 'layer4.*requires a gradient'),
    ],
)
def test_the_hook_refuses_a_classifier_that_learns(backbone, fixed, message):
    model = build('resnet', type='ImageClassifier', backbone=backbone)
    if fixed:
        model.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match=f'(?s){message}') as caught:
        start_hook(model)
    assert "model.type='ImageClassifier'" in str(caught.value)


@pytest.mark.parametrize(
    'name', ['layer3.1.conv2.weight', 'layer2.0.bn1.running_var']
)
def test_the_hook_names_the_tensor_that_moved(name):
    model = build('resnet')
    hook, runner = start_hook(model)
    kept = copy.deepcopy(model.backbone.state_dict())
    model.backbone.state_dict()[name].view(-1)[3] += 1e-6
    assert moved(model.backbone, kept) == {name}
    for check in (hook.after_train_epoch, hook.after_train):
        with pytest.raises(RuntimeError, match=name) as caught:
            check(runner)
        assert 'iteration 5: 1 of ' in str(caught.value)
