# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from . import hooks, optimizers
from .cpu import adapt_to_cpu

__all__ = ['adapt_to_cpu', 'hooks', 'optimizers']
