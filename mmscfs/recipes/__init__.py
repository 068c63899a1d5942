# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Configs for a user's own data, from one table, and runs of them."""

from .detection import finetune, write_detector
from .memory import StepMemory, step_memory
from .pretraining import pretrain, time_step, write_pretraining
from .running import Run
from .table import (
    GIB,
    Images,
    Machine,
    Settings,
    choose,
    departures,
    look_at_images,
    look_at_machine,
)

__all__ = [
    'GIB',
    'Images',
    'Machine',
    'Run',
    'Settings',
    'StepMemory',
    'choose',
    'departures',
    'finetune',
    'look_at_images',
    'look_at_machine',
    'pretrain',
    'step_memory',
    'time_step',
    'write_detector',
    'write_pretraining',
]
