# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Networks as other projects write them, with every number a random one."""

import torch
import torchvision
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
