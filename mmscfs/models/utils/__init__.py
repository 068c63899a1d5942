# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .batch_norm import has_batch_norm
from .data_preprocessor import MultiCropDataPreprocessor, check_colors
from .in_channels import output_channels, with_in_channels
from .momentum_teacher import MomentumTeacher
from .queue import check_queue_length
from .teacher_center import TeacherCenter, update_centers

__all__ = [
    'MomentumTeacher',
    'MultiCropDataPreprocessor',
    'TeacherCenter',
    'check_colors',
    'check_queue_length',
    'has_batch_norm',
    'output_channels',
    'update_centers',
    'with_in_channels',
]
