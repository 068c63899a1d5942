# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .activation_checkpoint import checkpoint_blocks
from .compilation import compile_for_training
from .data_preprocessor import (
    AnyChannels,
    MultiCropDataPreprocessor,
    check_colors,
)
from .in_channels import (
    check_channels,
    evaluating,
    output_channels,
    outputs_of_blank,
    with_in_channels,
)
from .momentum_teacher import (
    MomentumTeacher,
    fit_backbone,
    is_free_to_read,
    move_,
)

__all__ = [
    'AnyChannels',
    'MomentumTeacher',
    'MultiCropDataPreprocessor',
    'check_channels',
    'check_colors',
    'checkpoint_blocks',
    'compile_for_training',
    'evaluating',
    'fit_backbone',
    'is_free_to_read',
    'move_',
    'output_channels',
    'outputs_of_blank',
    'with_in_channels',
]
