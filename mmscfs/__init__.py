# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SCFS and DINO pre-training as an OpenMMLab plugin.

``custom_imports = dict(imports=['mmscfs'])`` in a config registers everything
here in mmpretrain's registries, which import it when they are first asked.
"""

from .compatibility import check_stack, provide_home
from .version import __version__

provide_home()
check_stack()

from .ops import install_operators  # noqa: E402

install_operators()  # before anything imports mmcv.ops, as mmdet does

from . import patches  # noqa: E402

patches.install()

__all__ = ['__version__']
