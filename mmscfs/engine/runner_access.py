# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner


def unwrapped_model(runner: Runner) -> BaseModel:
    """Return the runner's model without its distributed wrapper."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def require_epochs(runner: Runner, hook: str) -> None:
    """Check that the run counts epochs, as a hook needs it to.

    Raises:
        ValueError: The training loop counts iterations only.
    """
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        raise ValueError(
            f'{hook} counts epochs, but train_cfg.type={type(loop).__name__} '
            'has none: use EpochBasedTrainLoop, or remove the hook from '
            'default_hooks'
        )
