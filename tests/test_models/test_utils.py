# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmscfs.models.utils import (
    MomentumTeacher,
    TeacherCenter,
    output_channels,
    update_centers,
    with_in_channels,
)


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_momentum_update_by_hand():
    student = Student()
    teacher = MomentumTeacher(part=student.part)
    with torch.no_grad():
        teacher.part[0].weight.fill_(1.0)
        student.part[0].weight.fill_(3.0)
    teacher.momentum_update(student, 0.75)
    assert_close(teacher.part[0].weight, torch.full((3, 2), 1.5))
    with pytest.raises(ValueError, match='momentum=1.5'):
        teacher.momentum_update(student, 1.5)


def test_copy_from_copies_buffers_too():
    student = Student()
    teacher = MomentumTeacher(part=student.part)
    student.part[1].running_mean.fill_(2)
    teacher.copy_from(student)
    assert teacher.part[1].running_mean.tolist() == [2, 2, 2]


def test_centers_follow_the_mean_by_hand():
    center, idle = TeacherCenter(2, momentum=0.9), TeacherCenter(3)
    idle.value.fill_(5)
    center.value.fill_(1)
    center.collect(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
    center.collect(torch.tensor([[5.0, 6.0]]))
    update_centers([center, idle])
    assert_close(center.value, torch.tensor([0.9 + 0.3, 0.9 + 0.4]))
    assert idle.value.tolist() == [5, 5, 5]  # it saw nothing
    assert not center.collected.any()


def test_half_precision_outputs_are_summed_in_fp32():
    center = TeacherCenter(1, momentum=0)
    center.collect(torch.ones(3000, 1, dtype=torch.bfloat16))
    update_centers([center])
    assert center.value.item() == 1


def test_pending_outputs_are_not_saved():
    assert set(TeacherCenter(2).state_dict()) == {'value'}


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


def test_channels_are_asked_from_the_backbone():
    backbone = Backbone().train()
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    random_state = torch.get_rng_state()
    assert output_channels(backbone) == [5, 7]
    # Asking changes nothing: no statistics, no mode, no random numbers.
    assert backbone.training
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key])


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
