# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.optim import DefaultOptimWrapperConstructor
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DecayGroupConstructor(DefaultOptimWrapperConstructor):
    """Two parameter groups: with weight decay, and without.

    Biases and one-dimensional parameters are not decayed, as in DINO.
    mmengine's default would make a group of each parameter, on which neither
    the multi-tensor optimisers nor the schedulers are fast, and one warning
    for each of the teacher's.

    Raises:
        ValueError: ``paramwise_cfg`` is set; it has no effect here.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        if paramwise_cfg:
            raise ValueError(
                f'optim_wrapper.paramwise_cfg={dict(paramwise_cfg)} has no '
                'effect with DecayGroupConstructor: delete it, or set '
                "optim_wrapper.constructor='DefaultOptimWrapperConstructor'"
            )
        # Any non-empty value leads the base class to call add_params.
        super().__init__(optim_wrapper_cfg, dict(flat_decay_mult=0.0))

    def add_params(
        self, params: list[dict], module: nn.Module, **kwargs
    ) -> None:
        """Append the trainable parameters' groups to ``params``."""
        decayed, others = [], []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                flat = parameter.ndim <= 1 or name.endswith('.bias')
                (others if flat else decayed).append(parameter)
        params.append(dict(params=decayed))
        if others:
            params.append(dict(params=others, weight_decay=0.0))
