# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .decay_group_constructor import DecayGroupConstructor
from .per_param_clip_optim_wrapper import PerParamClipOptimWrapper

__all__ = ['DecayGroupConstructor', 'PerParamClipOptimWrapper']
