# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .dino import DINO
from .scfs import SCFS

__all__ = ['DINO', 'SCFS']
