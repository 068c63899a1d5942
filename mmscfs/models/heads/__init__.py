# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .dino_head import DINOHead
from .scfs_head import SCFSHead

__all__ = ['DINOHead', 'SCFSHead']
