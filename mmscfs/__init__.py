# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SCFS and DINO pre-training as an OpenMMLab plugin.

``custom_imports = dict(imports=['mmscfs'])`` in a config registers everything
here in mmpretrain's registries, which import it when they are first asked.
:func:`pretrain` and :func:`finetune` are :mod:`mmscfs.recipes`'s.
"""

from typing import TYPE_CHECKING, Any

from .compatibility import check_stack, provide_home
from .version import __version__

provide_home()
check_stack()

from .ops import install_operators  # noqa: E402

install_operators()  # before anything imports mmcv.ops, as mmdet does

from . import patches  # noqa: E402

patches.install()

if TYPE_CHECKING:
    from .recipes import finetune, pretrain

__all__ = ['__version__', 'finetune', 'pretrain']


def __getattr__(name: str) -> Any:
    """Import what trains when it is first used: it takes seconds."""
    if name in ('finetune', 'pretrain'):
        from . import recipes

        return getattr(recipes, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
