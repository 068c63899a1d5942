# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .linear_probe import LinearProbe

__all__ = ['LinearProbe']
