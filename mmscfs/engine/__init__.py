# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from . import hooks, loops, optimizers
from .distributed import choose_wrapper
from .prepare import apply_multi_crop, prepare_config
from .pretrained import start_from
from .resume.chooser import SavedRun
from .start import prepare_run
from .view_settings import settle_views

__all__ = [
    'SavedRun',
    'apply_multi_crop',
    'choose_wrapper',
    'hooks',
    'loops',
    'optimizers',
    'prepare_config',
    'prepare_run',
    'settle_views',
    'start_from',
]
