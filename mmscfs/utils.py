# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What ``mmengine.hub.get_model`` calls, by these names, in any package."""

import time

from mmengine.registry import DefaultScope


def register_all_modules(init_default_scope: bool = True) -> None:
    """Let models be built by their names; importing has registered them.

    Args:
        init_default_scope (bool): Make mmpretrain, in whose registries they
            are, the default scope. Defaults to True.
    """
    if init_default_scope:
        # mmengine's own way to do so would warn that another one was set.
        DefaultScope.get_instance(
            f'mmscfs-{time.time()}', scope_name='mmpretrain'
        )
