# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The optimizer's step: its parameter groups, clipping and precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from mmscfs.compatibility import has_fast_bf16

DTYPES = {'fp32': None, 'fp16': torch.float16, 'bf16': torch.bfloat16}
FUSED = ('SGD', 'Adam', 'AdamW')  # that have a fused step on both:
DEVICES = ('cpu', 'cuda')
# Numbers in a gradient that an accelerator scales in less time than the host
# needs to ask for it.
SMALL = 1 << 18


def default_precision() -> str:
    """Return the fastest safe precision of this machine.

    fp16 with loss scaling on an accelerator, as the authors train; on a CPU
    bf16 if its instructions include it, fp32 otherwise.
    """
    if get_device() != 'cpu':
        return 'fp16'
    return 'bf16' if has_fast_bf16() else 'fp32'


@torch.no_grad()
def clip_each_gradient_(
    gradients: list[Tensor], max_norm: float | None
) -> Tensor:
    """Scale every gradient whose own L2 norm exceeds ``max_norm`` down to it.

    DINO clips each parameter by itself, not all of them by a common norm.
    Nothing is read back from an accelerator; on a CPU, where that is free,
    the norms tell which gradients need no second pass.

    Returns:
        Tensor: The norms before, one of each gradient. With ``max_norm`` None
        nothing is clipped.
    """
    if not gradients:
        return torch.zeros(0)
    norms = torch.stack(torch._foreach_norm(gradients))
    if max_norm is None:
        return norms
    scales = (max_norm / (norms + 1e-6)).clamp(max=1)
    factors = list(scales.unbind())
    if scales.is_cpu:
        kept = (scales == 1).tolist()
        pairs = zip(gradients, factors, kept, strict=True)
        for gradient, factor, keep in pairs:
            if not keep:
                gradient.mul_(factor)
    else:
        scale_each_(gradients, factors)
    return norms


def scale_each_(tensors: list[Tensor], factors: list[Tensor]) -> None:
    """Multiply each tensor by its own scalar, small ones in a few kernels.

    torch multiplies many tensors at once if their factors have their shapes,
    so those of small ones are written out.
    """
    small: list[Tensor] = []
    written_out: list[Tensor] = []
    for tensor, factor in zip(tensors, factors, strict=True):
        if tensor.numel() <= SMALL and tensor.is_contiguous():
            small.append(tensor.view(-1))
            written_out.append(factor.expand(tensor.numel()))
        else:
            tensor.mul_(factor)
    if small:
        sizes = [len(tensor) for tensor in small]
        factors = list(torch.cat(written_out).split(sizes))
        torch._foreach_mul_(small, factors)


@OPTIM_WRAPPERS.register_module()
class PerParamClipOptimWrapper(OptimWrapper):
    """Optimizer wrapper with per-parameter clipping and mixed precision.

    A step whose gradients are not finite, as those that overflow in fp16, is
    skipped at every precision: weights and the optimizer's state stay. A
    fused optimizer skips it on the device and the host does not wait; with
    any other the host waits for the gradients. All processes decide alike,
    for they share their gradients. A bad batch of several accumulated ones
    spoils their common step.

    Args:
        precision (str): 'fp32'; 'fp16' with loss scaling; 'bf16'; or 'auto':
            fp16 on an accelerator, on a CPU bf16 if it has the instructions
            and fp32 if not. Defaults to 'auto'.
        init_loss_scale (float): First loss scale of fp16; it doubles after
            2000 good steps and halves after a skipped one. Defaults to 2^16.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`;
            ``clip_grad=dict(max_norm=3.0)`` clips each parameter.

    Attributes:
        skipped (Tensor): 1 if the last step was skipped, else 0, a float on
            the device.

    Raises:
        ValueError: The precision, the scale or ``clip_grad`` is not valid.
    """

    def __init__(
        self,
        precision: str = 'auto',
        init_loss_scale: float = 2.0**16,
        **kwargs: Any,
    ) -> None:
        clip_grad = kwargs.get('clip_grad')
        if clip_grad is not None and (
            set(clip_grad) != {'max_norm'} or not clip_grad['max_norm'] > 0
        ):
            raise ValueError(
                f'optim_wrapper.clip_grad={dict(clip_grad)} must be '
                'dict(max_norm=x) with x > 0: each parameter is clipped by '
                'its own L2 norm'
            )
        if precision != 'auto' and precision not in DTYPES:
            raise ValueError(
                f'optim_wrapper.precision={precision!r} must be '
                f"{', '.join(map(repr, DTYPES))} or 'auto'"
            )
        if not init_loss_scale > 0:
            raise ValueError(
                f'optim_wrapper.init_loss_scale={init_loss_scale} must be > 0'
            )
        super().__init__(**kwargs)
        if precision == 'auto':
            precision = default_precision()
        self.precision = precision
        self.device_type = get_device().split(':')[0]
        self.skipped = torch.zeros((), device=self.device_type)
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type,
            init_scale=init_loss_scale,
            enabled=precision == 'fp16',
        )

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate the loss, scaled for fp16."""
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip and step, or skip a step whose gradients are not finite.

        In fp16 that also halves the loss scale. A gradient so large that its
        norm overflows counts as not finite.
        """
        self.loss_scaler.unscale_(self.optimizer)
        self.skipped = 1 - self._clip_grad().isfinite().all().float()
        if all(group.get('fused') for group in self.optimizer.param_groups):
            self.optimizer.found_inf = self.skipped
            try:
                self.optimizer.step(**kwargs)
            finally:
                del self.optimizer.found_inf
        elif not self.skipped:  # waits for an accelerator
            self.optimizer.step(**kwargs)
        self.loss_scaler.update()

    def _clip_grad(self) -> Tensor:
        gradients = [
            parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]
        max_norm = self.clip_grad_kwargs and self.clip_grad_kwargs['max_norm']
        return clip_each_gradient_(gradients, max_norm)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enable autocast, and mmengine's gradient accumulation."""
        dtype = DTYPES[self.precision]
        with (
            super().optim_context(model),
            torch.autocast(
                self.device_type, dtype=dtype, enabled=dtype is not None
            ),
        ):
            yield

    def state_dict(self) -> dict:
        """Return the optimizer's state and, for fp16, the loss scaler's."""
        state = super().state_dict()
        if self.loss_scaler.is_enabled():
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`state_dict` returned, at any precision."""
        state_dict = dict(state_dict)
        scaler_state = state_dict.pop('loss_scaler', None)
        if scaler_state and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(scaler_state)
        super().load_state_dict(state_dict)


def prepare_fused_step(optimizer: Optimizer, *_: Any) -> None:
    """Make true what torch's fused step assumes and does not check.

    Gradients and state lie in memory as their parameters do, unlike the
    state of a run whose weights were not channels last. And either all
    parameters have a momentum or none; one that was frozen has none yet, and
    zeros give what the plain loop gives.
    """
    for group in optimizer.param_groups:
        if not group.get('fused'):
            continue
        has_momentum = isinstance(optimizer, SGD) and group['momentum']
        for parameter in group['params']:
            if parameter.grad is None:
                continue
            parameter.grad = laid_out_as(parameter, parameter.grad)
            state = optimizer.state[parameter]
            if has_momentum and state.get('momentum_buffer') is None:
                state['momentum_buffer'] = torch.zeros_like(parameter)
            for name, value in state.items():
                state[name] = laid_out_as(parameter, value)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a tensor of a parameter's shape with its strides."""
    if (
        not isinstance(value, Tensor)
        or value.shape != parameter.shape
        or value.stride() == parameter.stride()
    ):
        return value
    return torch.empty_like(parameter).copy_(value)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DecayGroupConstructor(DefaultOptimWrapperConstructor):
    """Two parameter groups: with weight decay, and without.

    Biases and one-dimensional parameters are not decayed, as in DINO.
    mmengine's default would make a group of each parameter, on which neither
    the multi-tensor optimizers nor the schedulers are fast, and one warning
    for each of the teacher's.

    The optimizer's step is torch's fused one, unless the config has ``fused``
    or ``foreach``: on a CPU two to four times as fast as the default, with
    the same results, and on a GPU able to skip a step without asking the
    host. Not with SGD's ``dampening``.

    Raises:
        ValueError: ``paramwise_cfg`` is set; it has no effect here.
    """

    optimizer_cfg: dict[str, Any]

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
        if (
            get_device() in DEVICES
            and self.optimizer_cfg['type'] in FUSED
            and not {'fused', 'foreach'} & set(self.optimizer_cfg)
            and not self.optimizer_cfg.get('dampening')
        ):
            self.optimizer_cfg = dict(self.optimizer_cfg, fused=True)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Return the optimizer wrapper of a model."""
        wrapper = super().__call__(model)
        # In any case: a resumed checkpoint may say that the step is fused.
        wrapper.optimizer.register_step_pre_hook(prepare_fused_step)
        return wrapper

    def add_params(
        self, params: list[dict], module: nn.Module, **kwargs: Any
    ) -> None:
        """Append the trainable parameters' groups to ``params``."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                flat = parameter.ndim <= 1 or name.endswith('.bias')
                (others if flat else decayed).append(parameter)
        params.append(dict(params=decayed))
        if others:
            params.append(dict(params=others, weight_decay=0.0))
