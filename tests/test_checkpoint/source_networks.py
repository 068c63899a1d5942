# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Networks and checkpoints of other projects, with random numbers."""

import argparse

import torch
import torchvision
from mmengine.registry import MODELS
from torch import nn

VIT = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=40)
# Of VisionTransformer in mmpretrain, for PlainViT.
VIT_CFG = dict(
    type='mmpretrain.VisionTransformer',
    arch=VIT,
    img_size=32,
    patch_size=8,
    out_indices=[0, 1, 2],
    out_type='raw',
)


def shake(module, seed):
    """Give a module random weights and statistics; return it, evaluating."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if key.endswith('num_batches_tracked'):
            value.fill_(seed + 100)
        elif not value.is_floating_point():
            continue  # an index
        elif key.endswith('running_var') or value.ndim <= 1:
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
    module.eval()  # mmdet's returns None
    return module


def torchvision_resnet(depth, seed):
    """A torchvision ResNet, with its fc."""
    return shake(getattr(torchvision.models, f'resnet{depth}')(), seed)


def narrow_resnet(depth, **settings):
    """An mmdet ResNet of width 4, whose names are torchvision's."""
    cfg = dict(type='mmdet.ResNet', stem_channels=4, base_channels=4)
    return MODELS.build(dict(cfg, depth=depth, **settings))


def narrow_state(depth, seed=1):
    return shake(narrow_resnet(depth), seed).state_dict()


def assert_equal_state(module, wanted, prefix=''):
    """Every tensor of the module has the bits of the source."""
    own = module.state_dict()
    assert own
    for key, value in own.items():
        assert torch.equal(value, wanted[f'{prefix}{key}']), key


def resnet_features(net, images):
    """The four stages of a torchvision ResNet, one after the other."""
    maps, features = net.maxpool(net.relu(net.bn1(net.conv1(images)))), []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        maps = layer(maps)
        features.append(maps)
    return features


class PlainViT(nn.Module):
    """A vision transformer with the names of timm and DINO.

    Args:
        layer_scale (bool): Whether to scale the branches, as "ls1", "ls2".
    """

    def __init__(self, layer_scale=False):
        super().__init__()
        dims, size = VIT['embed_dims'], VIT['feedforward_channels']
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 4 * 4, dims))
        self.patch_embed = nn.ModuleDict(dict(proj=nn.Conv2d(3, dims, 8, 8)))
        self.blocks = nn.ModuleList()
        for _ in range(VIT['num_layers']):
            block = nn.ModuleDict(
                dict(
                    norm1=nn.LayerNorm(dims, eps=1e-6),
                    attn=nn.ModuleDict(
                        dict(
                            qkv=nn.Linear(dims, 3 * dims),
                            proj=nn.Linear(dims, dims),
                        )
                    ),
                    norm2=nn.LayerNorm(dims, eps=1e-6),
                    mlp=nn.ModuleDict(
                        dict(
                            fc1=nn.Linear(dims, size),
                            fc2=nn.Linear(size, dims),
                        )
                    ),
                )
            )
            for name in ('ls1', 'ls2') if layer_scale else ():
                block[name] = nn.ParameterDict(dict(gamma=torch.ones(dims)))
            self.blocks.append(block)
        self.norm = nn.LayerNorm(dims, eps=1e-6)

    @staticmethod
    def attend(attn, tokens):
        """Self-attention, head by head."""
        size = VIT['embed_dims'] // VIT['num_heads']
        query, key, value = attn['qkv'](tokens).chunk(3, dim=-1)
        heads = []
        for i in range(VIT['num_heads']):
            part = slice(i * size, (i + 1) * size)
            scores = query[..., part] @ key[..., part].transpose(1, 2)
            weights = (scores / size**0.5).softmax(-1)
            heads.append(weights @ value[..., part])
        return attn['proj'](torch.cat(heads, dim=-1))

    def forward(self, images):
        """Tokens after each block, (B, 17, C); the last ones normalized."""
        patches = self.patch_embed['proj'](images).flatten(2).transpose(1, 2)
        tokens = torch.cat(
            [self.cls_token.expand(len(images), -1, -1), patches], dim=1
        )
        tokens = tokens + self.pos_embed
        features = []
        for block in self.blocks:
            branch = self.attend(block['attn'], block['norm1'](tokens))
            if 'ls1' in block:
                branch = branch * block['ls1']['gamma']
            tokens = tokens + branch
            hidden = block['mlp']['fc1'](block['norm2'](tokens))
            branch = block['mlp']['fc2'](nn.functional.gelu(hidden))
            if 'ls2' in block:
                branch = branch * block['ls2']['gamma']
            tokens = tokens + branch
            features.append(tokens)
        return [*features[:-1], self.norm(features[-1])]


def prefixed(prefix, state):
    return {f'{prefix}{key}': value for key, value in state.items()}


def without_fc(state):
    return {k: v for k, v in state.items() if not k.startswith('fc.')}


def scfs_release(own, other):
    """Both networks in DistributedDataParallel, torchextractor's "model"."""
    heads = dict.fromkeys(
        [
            'module.head.mlp.0.weight',
            'module.head.last_layer.weight_v',
            'module.layer2_head.conv1.weight',
            'module.layer4_head.bn1.running_mean',
        ],
        torch.ones(2, 2),
    )
    return dict(
        student=prefixed('module.backbone.model.', without_fc(other)) | heads,
        teacher=prefixed('module.backbone.model.', without_fc(own)) | heads,
        optimizer=dict(state={}, param_groups=[]),
        epoch=200,
        args=argparse.Namespace(arch='resnet50', lr=0.1),
    )


def dino_release(own, other):
    """The teacher is not in DistributedDataParallel without BatchNorm."""
    head = {'head.mlp.0.weight': torch.ones(2, 2)}
    return dict(
        student=prefixed('module.backbone.', without_fc(other))
        | prefixed('module.', head),
        teacher=prefixed('backbone.', without_fc(own)) | head,
        epoch=800,
        args=argparse.Namespace(arch='vit_small'),
    )


def moco(own, other):
    mlp = {'fc.2.weight': torch.ones(2, 2)}  # version 2
    return dict(
        epoch=200,
        arch='resnet50',
        state_dict=prefixed('module.encoder_q.', own | mlp)
        | prefixed('module.encoder_k.', other | mlp)
        | {
            'module.queue': torch.ones(2, 4),
            'module.queue_ptr': torch.zeros(1, dtype=torch.long),
        },
        optimizer=dict(state={}, param_groups=[]),
    )


def moco_v3(own, other):
    head = {'head.0.weight': torch.ones(2, 2)}
    return dict(
        epoch=300,
        arch='vit_small',
        state_dict=prefixed('module.base_encoder.', own | head)
        | prefixed('module.momentum_encoder.', other | head)
        | {'module.predictor.0.weight': torch.ones(2, 2)},
    )


def mmpretrain(own, other):
    return dict(
        meta=dict(epoch=100),
        state_dict=prefixed('backbone.', without_fc(own))
        | {
            'head.fc.weight': torch.ones(2, 2),
            'data_preprocessor.mean': torch.ones(3, 1, 1),
        },
    )


def sequence(state):
    """The names of nn.Sequential(*resnet.children())[:-1]."""
    places = dict(
        conv1='0', bn1='1', layer1='4', layer2='5', layer3='6', layer4='7'
    )
    return {
        '.'.join([places[first], *rest]): value
        for first, *rest, value in (
            [*key.split('.'), value]
            for key, value in without_fc(state).items()
        )
    }


def lightly_dino(own, other):
    head = {'student_head.layers.0.weight': torch.ones(2, 2)}
    return (
        prefixed('student_backbone.', sequence(other))
        | prefixed('teacher_backbone.', sequence(own))
        | head
    )


def lightly_module(own, other):
    head = {'projection_head.layers.0.weight': torch.ones(2, 2)}
    return dict(state_dict=prefixed('backbone.', sequence(own)) | head)


def vissl(own, other):
    trunk = prefixed('_feature_blocks.', without_fc(own))
    model = dict(trunk=trunk, heads={'0.weight': torch.ones(2, 2)})
    return dict(classy_state_dict=dict(base_model=dict(model=model)), loss=1.0)


def solo_learn(own, other):
    head = {'projector.0.weight': torch.ones(2, 2)}
    return dict(
        epoch=1,
        state_dict=prefixed('backbone.', without_fc(own))
        | prefixed('momentum_backbone.', without_fc(other))
        | head,
    )


def swav(own, other):
    head = {
        'projection_head.0.weight': torch.ones(2, 2),
        'prototypes.weight': torch.ones(2, 2),
    }
    return prefixed('module.', without_fc(own) | head)
