# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(module: nn.Module) -> int:
    """Have a module's blocks keep their inputs only, in place.

    What else the backward pass needs of a block is computed again there: a
    forward pass more for less memory, with the same losses, gradients and
    running statistics. Neither mmpretrain's ``with_cp`` nor mmengine's
    ``activation_checkpointing`` will do: there batch norm's running
    statistics move twice in a step.

    Args:
        module (nn.Module): A backbone or neck; its blocks are what its
            lists and sequences consist of.

    Returns:
        int: The number of blocks.
    """
    blocks = [*find_blocks(module)]
    for block in blocks:
        # A partial, unlike a closure, has copies of a block call themselves.
        block.forward = partial(checkpointed_forward, block)
    return len(blocks)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules with parts in a module's lists and sequences."""
    for container in module.children():
        if not isinstance(container, (nn.Sequential, nn.ModuleList)):
            continue
        yield from find_blocks(container)
        for block in container:
            is_list = isinstance(block, (nn.Sequential, nn.ModuleList))
            if not is_list and next(block.children(), None) is not None:
                yield block


def checkpointed_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run a block's forward pass, and in a backward pass once more."""
    return checkpoint(
        type(block).forward,
        block,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), running_statistics_held(block)),
        **kwargs,
    )


@contextmanager
def running_statistics_held(module: nn.Module) -> Iterator[None]:
    """Have batch norm move copies of its running statistics."""
    held = [
        (norm, name, statistic)
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.training
        for name, statistic in norm.named_buffers(recurse=False)
    ]
    for norm, name, statistic in held:
        setattr(norm, name, statistic.clone())
    try:
        yield
    finally:
        for norm, name, statistic in held:
            setattr(norm, name, statistic)
