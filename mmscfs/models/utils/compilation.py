# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Entries for one function. Where a graph breaks, as at synchronised batch
# norm, blocks are compiled one by one: all stages and crop sizes share one.
RECOMPILE_LIMIT = 64


def compile_for_training(module: nn.Module, options: Mapping) -> None:
    """Compile a module in place, for training only.

    Each shape has a graph of its own, compiled at its first batch: two crop
    sizes, two graphs, and no others later. In evaluation mode, where shapes
    vary and batches are few, the module runs as it is. Names of parameters
    and copies of the module are those of one that is not compiled.

    Args:
        module (nn.Module): A module whose training batches are all alike.
        options (Mapping): Those of :func:`torch.compile`, e.g.
            ``dict(mode='max-autotune-no-cudagraphs')``.

    Raises:
        ValueError: torch does not know an option.
    """
    try:
        module.compile(**{'dynamic': False, **options})
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f'model.compile={options}: torch.compile does not take '
            f'them ({error}); set model.compile=True, or its arguments as a '
            "dict, e.g. dict(mode='default')"
        ) from error
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    compiled: Any = module._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = compiled if module.training else module._call_impl
        return chosen(*args, **kwargs)

    # What Module.compile sets, too: copies and pickles leave it out.
    module._compiled_call_impl = call
