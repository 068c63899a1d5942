# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """Return the runner's model without its distributed wrapper."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model
