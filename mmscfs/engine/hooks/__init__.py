# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .collapse_monitor_hook import CollapseMonitorHook
from .deferred_runtime_info_hook import DeferredRuntimeInfoHook
from .frozen_backbone_hook import FrozenBackboneHook
from .frozen_prototypes_hook import FrozenPrototypesHook
from .momentum_teacher_hook import MomentumTeacherHook
from .non_finite_loss_hook import NonFiniteLossHook
from .pictures_hook import PicturesHook
from .preflight_hook import PreflightHook
from .pretrained_guard_hook import PretrainedGuardHook
from .result_file_hook import ResultFileHook
from .teacher_temperature_hook import TeacherTemperatureHook

__all__ = [
    'CollapseMonitorHook',
    'DeferredRuntimeInfoHook',
    'FrozenBackboneHook',
    'FrozenPrototypesHook',
    'MomentumTeacherHook',
    'NonFiniteLossHook',
    'PicturesHook',
    'PreflightHook',
    'PretrainedGuardHook',
    'ResultFileHook',
    'TeacherTemperatureHook',
]
