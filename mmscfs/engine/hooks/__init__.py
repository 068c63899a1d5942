# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .collapse_monitor_hook import CollapseMonitorHook
from .deferred_runtime_info_hook import DeferredRuntimeInfoHook
from .dino_hooks import (
    FrozenPrototypesHook,
    MomentumTeacherHook,
    TeacherTemperatureHook,
)
from .frozen_backbone_hook import FrozenBackboneHook
from .non_finite_loss_hook import NonFiniteLossHook
from .pictures_hook import PicturesHook
from .plain_checkpoint_hook import PlainCheckpointHook
from .preemption_hook import PreemptionHook
from .preflight_hook import PreflightHook
from .pretrained_guard_hook import PretrainedGuardHook
from .result_file_hook import ResultFileHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = [
    'CollapseMonitorHook',
    'DeferredRuntimeInfoHook',
    'FrozenBackboneHook',
    'FrozenPrototypesHook',
    'MomentumTeacherHook',
    'NonFiniteLossHook',
    'PicturesHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'PreflightHook',
    'PretrainedGuardHook',
    'ResultFileHook',
    'SafeCheckpointHook',
    'TeacherTemperatureHook',
]
