# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .momentum_teacher import MomentumTeacher
from .teacher_center import TeacherCenter, update_centers

__all__ = ['MomentumTeacher', 'TeacherCenter', 'update_centers']
