# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The registry of the scope "mmscfs", where mmengine looks for it.

A pre-trained backbone's ``init_cfg`` names the scope, and mmengine warns of
each scope whose package has no such module.
"""

from .checkpoint.pretrained import INITIALIZERS

__all__ = ['INITIALIZERS']
