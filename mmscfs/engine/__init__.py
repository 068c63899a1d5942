# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from . import hooks, loops, optimizers
from .distributed import choose_wrapper
from .prepare import apply_multi_crop, prepare_config
from .pretrained import start_from
from .resume.chooser import (
    SavedRun,
    check_work_dir,
    choose_checkpoint,
    describe_finished,
)
from .view_settings import settle_views

__all__ = [
    'SavedRun',
    'apply_multi_crop',
    'check_work_dir',
    'choose_checkpoint',
    'choose_wrapper',
    'describe_finished',
    'hooks',
    'loops',
    'optimizers',
    'prepare_config',
    'settle_views',
    'start_from',
]
