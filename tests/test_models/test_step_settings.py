# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""``model.compile`` and ``model.checkpoint_activations``."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmcv.cnn.bricks import DropPath
from mmpretrain.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmscfs.models.utils import checkpoint_blocks


class Block(nn.Module):
    """A residual block that drops at random in training."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        # As mmpretrain's vision transformers have it.
        drop = DropPath(np.float64(0.2))
        self.hidden = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), drop)

    def forward(self, x):
        return x + self.hidden(self.norm(self.conv(x)))


class Backbone(nn.Module):
    """Quick to compile: three maps of 4, 8 and 8 channels."""

    out_indices = (1, 2, 3)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
        self.blocks = nn.ModuleList([Block(4), Block(8), Block(8)])
        self.widen = nn.Conv2d(4, 8, 2, 2)

    def forward(self, x):
        x = self.blocks[0](self.stem(x))
        y = self.blocks[1](self.widen(x))
        return x, y, self.blocks[2](y)


@pytest.fixture
def cfg(scfs_cfg):
    """The same seed before each model makes their weights the same."""
    scfs_cfg.update(backbone=Backbone())
    scfs_cfg['neck'].update(in_channels=8)
    scfs_cfg['search_neck'].update(in_channels=[4, 8, 8])
    return scfs_cfg


def build(cfg, **settings):
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(cfg) | settings).double().train()


def step(model, views):
    """A whole training step; return what came out of it."""
    torch.manual_seed(1)  # of what is dropped
    losses = model.loss(views)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    gradients = {
        f'grad {name}': parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    model.after_step(0.9)
    model.zero_grad()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return {**losses, **gradients, **state}


class Graphs:
    """A compiler that counts what it is asked for, and changes nothing."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def test_each_crop_size_is_compiled_once(cfg, views):
    # A process that has compiled may not be forked afterward.
    mp.start_processes(check_graphs, (cfg, views), 1, start_method='fork')


def check_graphs(_, cfg, views):
    graphs = Graphs()
    model = build(cfg, compile=dict(backend=graphs))
    plain = build(cfg)
    counts = []
    for number in range(2):
        batch = [view + number for view in views]
        found, expected = step(model, batch), step(plain, batch)
        for key, value in expected.items():
            assert_close(found[key], value, rtol=1e-12, atol=1e-12, msg=key)
        # Other images, modes and a resumed state call for nothing new.
        model.eval()
        for size in (32, 64, 96):
            images = torch.randn(3, 3, size, size, dtype=torch.float64)
            model(images)
            model.forward(images[:1], network='student')
        model.load_state_dict(model.state_dict())
        model.train()
        counts.append(graphs.count)
    # Backbone: global and local of the student, global of the teacher; neck:
    # student and teacher; search neck: as the backbone, and what was found.
    assert counts == [3 + 2 + 4] * 2

    # It is saved as any; a copy is its own, and is not compiled.
    assert [*model.state_dict()] == [*plain.state_dict()]
    other = copy.deepcopy(model)
    torch.save(other, io.BytesIO())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert other.loss(views)['loss_dino'] != model.loss(views)['loss_dino']
    assert graphs.count == 9


def saved_bytes(model, views):
    """Bytes of distinct tensors that the backward pass keeps."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses = model.loss(views)
    del losses
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    return sum(s.nbytes() for pointer, s in kept.items() if pointer not in own)


def test_checkpointed_steps_are_bit_equal(cfg, views):
    model, plain = build(cfg, checkpoint_activations=True), build(cfg)
    for _ in range(2):
        found, expected = step(model, views), step(plain, views)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    assert expected['backbone.blocks.0.norm.num_batches_tracked'] == 4
    assert any(key.endswith('running_var') for key in found)


def test_checkpointing_keeps_less(cfg, views):
    views = [view.repeat(2, 1, 2, 2) for view in views]
    model, plain = build(cfg, checkpoint_activations=True), build(cfg)
    assert saved_bytes(model, views) < 0.6 * saved_bytes(plain, views)


def test_copies_of_a_checkpointed_model_call_their_own_blocks(cfg):
    model = build(cfg, checkpoint_activations=True)
    for block in copy.deepcopy(model).backbone.blocks:
        assert block.forward.args[0] is block
    # The teacher keeps no activations, and needs no help.
    assert 'forward' not in vars(model.teacher.backbone.blocks[0])


@pytest.mark.parametrize(
    ('backbone', 'blocks'),
    [
        (dict(type='ResNet', depth=50), 16),
        (dict(type='ConvNeXt', arch='atto'), 12),
    ],
)
def test_blocks_of_backbones(backbone, blocks):
    assert checkpoint_blocks(MODELS.build(backbone)) == blocks


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(checkpoint_activations=1), '=1 must be True or False'),
        (dict(checkpoint_activations=True, compile=True), 'be combined'),
        (dict(compile=dict(speed=1)), 'model.compile=.*compile=True'),
    ],
)
def test_settings_that_cannot_be(cfg, settings, message):
    with pytest.raises(ValueError, match=message):
        build(cfg, **settings)


def test_a_backbone_without_blocks(cfg):
    cfg['backbone'].blocks = nn.Identity()
    with pytest.raises(ValueError, match='Backbone has no lists'):
        build(cfg, checkpoint_activations=True)
