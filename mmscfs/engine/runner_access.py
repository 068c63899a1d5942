# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sized
from typing import Any, cast

from mmengine.dist import get_world_size
from mmengine.hooks import LoggerHook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader


def unwrapped_model(runner: Runner) -> BaseModel:
    """Return the runner's model without its distributed wrapper."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def param_groups(runner: Runner) -> list[dict[str, Any]]:
    """Return the parameter groups of a runner's optimizer, or of several."""
    # mmengine's wrapper has more: a base rate, which nothing trains with.
    wrapper = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    parts = wrapper.values() if several else [wrapper]
    return [group for part in parts for group in part.optimizer.param_groups]


def log_is_due(runner: Runner, batch_idx: int) -> bool:
    """Whether a hook logs after this iteration, counted from 0 in a loop."""
    return any(
        isinstance(hook, LoggerHook)
        and hook.every_n_inner_iters(batch_idx, hook.interval)
        for hook in runner.hooks
    )


def require_epochs(runner: Runner, hook: str) -> None:
    """Check that the run counts epochs, as a hook needs it to.

    Raises:
        ValueError: The training loop counts iterations only.
    """
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        raise ValueError(
            f'{hook} counts epochs, but train_cfg.type={type(loop).__name__} '
            'counts iterations: use EpochBasedTrainLoop, or remove the hook '
            'from default_hooks'
        )


def check_not_empty(loader: DataLoader) -> None:
    """Check that an epoch has at least one batch.

    Raises:
        ValueError: The data set has fewer images than a batch.
    """
    if len(loader) == 0:
        images, size = len(cast(Sized, loader.sampler)), loader.batch_size
        processes = get_world_size()
        share = f' for each of {processes} processes' * (processes > 1)
        raise ValueError(
            f'train_dataloader.batch_size={size}: the data set has only '
            f'{images} images{share}, not one batch; lower the batch size, '
            'or add images'
        )
