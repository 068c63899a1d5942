# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmscfs.models.utils import (
    MomentumTeacher,
    TeacherCenter,
    update_centers,
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
