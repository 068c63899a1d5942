# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from ..pretrained import PretrainedGuardHook
from .collapse_monitor_hook import CollapseMonitorHook
from .deferred_runtime_info_hook import DeferredRuntimeInfoHook, read_hub
from .dino_hooks import (
    FrozenPrototypesHook,
    MomentumTeacherHook,
    TeacherTemperatureHook,
)
from .frozen_backbone_hook import FrozenBackboneHook
from .length_hook import LengthHook
from .non_finite_loss_hook import NonFiniteLossHook
from .pictures_hook import PicturesHook
from .preflight_hook import PreflightHook
from .recurring_hook import RecurringHook
from .representation_hook import RepresentationHook
from .result_file_hook import ResultFileHook
from .unreadable_files_hook import UnreadableFilesHook
from .view_recall_hook import ViewRecallHook

__all__ = [
    'CollapseMonitorHook',
    'DeferredRuntimeInfoHook',
    'FrozenBackboneHook',
    'FrozenPrototypesHook',
    'LengthHook',
    'MomentumTeacherHook',
    'NonFiniteLossHook',
    'PicturesHook',
    'RecurringHook',
    'PreflightHook',
    'PretrainedGuardHook',
    'RepresentationHook',
    'ResultFileHook',
    'TeacherTemperatureHook',
    'UnreadableFilesHook',
    'ViewRecallHook',
    'read_hub',
]
