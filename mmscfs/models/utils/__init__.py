# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .activation_checkpoint import checkpoint_blocks
from .backbone_state import fit_backbone
from .batch_norm import has_batch_norm
from .compilation import compile_for_training
from .data_preprocessor import MultiCropDataPreprocessor, check_colors
from .in_channels import output_channels, with_in_channels
from .momentum_teacher import MomentumTeacher
from .queue import check_queue_length
from .teacher_center import CenterReduction, TeacherCenter, update_centers

__all__ = [
    'CenterReduction',
    'MomentumTeacher',
    'MultiCropDataPreprocessor',
    'TeacherCenter',
    'check_colors',
    'check_queue_length',
    'checkpoint_blocks',
    'compile_for_training',
    'fit_backbone',
    'has_batch_norm',
    'output_channels',
    'update_centers',
    'with_in_channels',
]
