# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

# Entries for one function. Where a graph breaks, blocks are compiled one by
# one: all stages and crop sizes share one.
RECOMPILE_LIMIT = 64


class TrainingForward:
    """A module's forward pass, compiled while the module trains.

    In evaluation mode, where shapes vary and batches are few, the module runs
    as it is, and so do copies of it.

    Args:
        module (nn.Module): The module.
        options (Mapping): Those of :func:`torch.compile`.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> forward = TrainingForward(layer, dict(backend='eager'))
        >>> forward(torch.zeros(1, 3)).shape
        torch.Size([1, 2])
    """

    def __init__(self, module: nn.Module, options: Mapping) -> None:
        self.module = module
        self.eager = module.forward
        self.compiled = torch.compile(self.eager, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.compiled if self.module.training else self.eager
        return forward(*args, **kwargs)

    def __reduce__(self) -> tuple:
        """Have copies and pickles of the module call themselves."""
        return partial, (type(self.module).forward, self.module)


def compile_for_training(module: nn.Module, options: Mapping) -> None:
    """Compile a module in place, for training only.

    Each shape has its own graph, compiled at its first batch: two crop sizes,
    two graphs, and none later. Names of parameters are those of a module that
    is not compiled.

    mmcv's DropPath gets its rate as a Python number. mmpretrain gives it
    numpy's, which dynamo takes for data, and breaks the graph at each.

    Args:
        module (nn.Module): A module whose training batches are all alike.
        options (Mapping): Those of :func:`torch.compile`, e.g.
            ``dict(mode='max-autotune-no-cudagraphs')``.

    Raises:
        ValueError: torch does not know an option.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> compile_for_training(layer, dict(backend='eager'))
        >>> layer(torch.zeros(1, 3)).shape  # compiled here
        torch.Size([1, 2])
    """
    try:
        forward = TrainingForward(module, {'dynamic': False, **options})
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f'model.compile={options}: torch.compile does not take '
            f'them ({error}); set model.compile=True, or its arguments as a '
            "dict, e.g. dict(mode='default')"
        ) from error
    for part in module.modules():
        if isinstance(part, DropPath):
            part.drop_prob = float(part.drop_prob)
    # Shadows the class's method; nn.Module calls it by this name.
    module.forward = forward
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
