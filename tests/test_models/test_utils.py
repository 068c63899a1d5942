# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import contextlib

import pytest
import torch
import torch.distributed as dist
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from toy_runs import in_processes

from mmscfs.models.heads import (
    CenterReduction,
    TeacherCenter,
    update_centers,
)
from mmscfs.models.utils import (
    MultiCropDataPreprocessor,
    check_channels,
    move_,
    output_channels,
    with_in_channels,
)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(), None),
        (dict(mean=[1.0], std=[1.0]), None),
        (dict(mean=[1.0] * 5, std=[1.0] * 5), None),
        (dict(mean=[1.0] * 3, std=[1.0] * 3), 'mean has 3 numbers, .* have 5'),
        (dict(mean=[1.0], std=[1.0] * 4), 'std has 4 numbers'),
        (dict(to_rgb=True), 'to_rgb=True .* set to_rgb=False'),
    ],
)
def test_channels_of_backbone_and_preprocessor(settings, words):
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(5, 4, 3), nn.Conv2d(4, 8, 3))
    model.data_preprocessor = MultiCropDataPreprocessor(**settings)
    refused = pytest.raises(ValueError, match=words)
    with refused if words else contextlib.nullcontext():
        check_channels(model, 5)
    with pytest.raises(ValueError, match=r'model\.backbone\.in_channels=3'):
        check_channels(model, 3)


def test_half_precision_outputs_are_summed_in_fp32():
    center = TeacherCenter(1, momentum=0)
    center.collect(torch.ones(3000, 1, dtype=torch.bfloat16))
    update_centers([CenterReduction([center])])
    assert center.value.item() == 1
    update_centers([])  # nothing was seen
    assert center.value.item() == 1


def test_centers_of_a_skipped_step_stand_still():
    center = TeacherCenter(1, momentum=0.5)
    for output, skipped, expected in (
        (4.0, 0.0, 2.0),
        (8.0, 1.0, 2.0),
        (float('inf'), 1.0, 2.0),
        (float('nan'), 1.0, 2.0),
        (8.0, 0.0, 5.0),
    ):
        center.collect(torch.full((3, 1), output))
        update_centers([CenterReduction([center])], torch.tensor(skipped))
        assert center.value.item() == expected


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('weight', [0.0, 0.004, 0.5, 0.9, 1.0])
def test_values_move_unless_the_step_was_skipped(weight, dtype):
    """As on an accelerator, where the host does not know it."""
    torch.manual_seed(0)
    values = [torch.randn(shape, dtype=dtype) for shape in ((40,), (2, 3, 5))]
    targets = [torch.randn_like(value) for value in values]
    own = [value.clone() for value in values]
    move_(own, targets, weight, skipped=torch.ones(()))
    assert all(map(torch.equal, own, values))
    move_(own, targets, weight, skipped=torch.zeros(()))
    for value, old, target in zip(own, values, targets, strict=True):
        assert torch.equal(value, torch.lerp(old, target, weight))
        assert_close(value, old + weight * (target - old))


def test_moving_reads_nothing_from_an_accelerator():
    """On the meta device there is nothing to read."""
    value, skipped = (
        torch.ones(2, device='meta'),
        torch.ones((), device='meta'),
    )
    move_([value], [value], 0.1, skipped)
    with pytest.raises(RuntimeError, match='meta'):
        skipped.item()


def train_part(cfg, batches, world):
    """Three steps of two batches each; return the model's state.

    Each process has its part of every batch. Batch norm is in evaluation
    mode, so that images do not depend on one another.
    """
    torch.manual_seed(0)
    model = MODELS.build(cfg).double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    wrapped, reduced, rank = model, [], 0
    if world > 1:
        rank = dist.get_rank()
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        original = dist.all_reduce

        def all_reduce(tensor, *args, async_op=False, **kwargs):
            reduced.append((len(tensor), async_op))
            return original(tensor, *args, async_op=async_op, **kwargs)

        dist.all_reduce = all_reduce
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        for last, views in enumerate(batches):
            views = [view.chunk(world)[rank] for view in views]
            alone = world > 1 and not last
            with wrapped.no_sync() if alone else contextlib.nullcontext():
                losses = wrapped(views, mode='loss')
                loss, _ = model.parse_losses(losses)
                (loss / 2).backward()
        optimizer.step()
        model.after_step(0.9)
        optimizer.zero_grad()
    # In evaluation nothing is collected, and so nothing reduced.
    model.eval()(views, mode='loss')
    return dict(reduced=reduced, **model.state_dict())


def test_two_processes_move_the_centers_as_one(scfs_cfg, views, tmp_path):
    batches = [views, [view.flip(0) + 1 for view in views]]
    expected = train_part(scfs_cfg, batches, 1)
    found = in_processes(train_part, 2, tmp_path, scfs_cfg, batches, 2)
    assert expected.pop('reduced') == []
    assert any(expected['head.center.value'])
    for state in found:
        # One for each batch: four centers and their counts, not waited for.
        assert state.pop('reduced') == [(12 + 3 * 10 + 4, True)] * 6
        for key, value in expected.items():
            assert_close(state[key], value, rtol=1e-10, atol=1e-10, msg=key)


class Backbone(nn.Module):
    """A map of 5 and a vector of 7 channels, after a batch norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        self.norm = nn.BatchNorm2d(5)
        self.linear = nn.Linear(5, 7)
        self.smallest = 1

    def forward(self, images):
        if images.shape[-1] < self.smallest:
            raise AssertionError('too small for the windows')
        maps = self.norm(self.conv(images))
        return maps, self.linear(maps.mean((2, 3)))


def test_channels_are_those_of_the_backbone():
    backbone = Backbone().train()
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    random_state = torch.get_rng_state()
    assert output_channels(backbone) == [5, 7]
    # That changes nothing: no statistics, no mode, no random numbers.
    assert backbone.training
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key])
    backbone.conv = nn.Conv2d(12, 5, 1)  # of images with more channels
    assert output_channels(backbone) == [5, 7]


def test_necks_take_the_channels_unless_they_are_set():
    backbone, neck = Backbone(), dict(type='Neck')
    assert with_in_channels(neck, backbone) == neck | dict(in_channels=7)
    assert with_in_channels(neck, backbone, [0])['in_channels'] == [5]
    assert with_in_channels(neck, backbone, [1, 0])['in_channels'] == [7, 5]
    neck = dict(type='Neck', in_channels=3)
    assert with_in_channels(neck, backbone) is neck


def test_a_backbone_whose_channels_are_not_known():
    backbone = Backbone()
    backbone.smallest = 500
    with pytest.raises(ValueError, match='too small.*set in_channels in mod'):
        output_channels(backbone)
    backbone.smallest = 1
    backbone.linear = nn.Unflatten(1, (5, 1))  # tokens (B, L, C)
    with pytest.raises(ValueError, match=r'\(1, 5, 1\).*out_type'):
        output_channels(backbone)
