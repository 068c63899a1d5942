# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from mmscfs.compatibility import has_fast_bf16

DTYPES = {'fp32': None, 'fp16': torch.float16, 'bf16': torch.bfloat16}


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

    Args:
        gradients (list[Tensor]): Changed in place.
        max_norm (float, optional): None clips nothing.

    Returns:
        Tensor: The norms before, one of each gradient.
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
        torch._foreach_mul_(gradients, factors)
    return norms


@OPTIM_WRAPPERS.register_module()
class PerParamClipOptimWrapper(OptimWrapper):
    """Optimiser wrapper with per-parameter clipping and mixed precision.

    A step whose loss or gradient is not finite is skipped at every precision:
    the optimiser is not called, or told on the device to change nothing. All
    processes decide alike, for they share their gradients. A bad batch of
    several accumulated ones spoils their common step.

    Args:
        precision (str): 'fp32'; 'fp16' with loss scaling; 'bf16'; or 'auto':
            fp16 on an accelerator, on a CPU bf16 if it has the instructions
            and fp32 if not. Defaults to 'auto'.
        init_loss_scale (float): First loss scale of fp16; it doubles after
            2000 good steps and halves after a skipped one. Defaults to 2^16.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`;
            ``clip_grad=dict(max_norm=3.0)`` clips each parameter.

    Attributes:
        skipped (bool | Tensor): Whether the last step was skipped; a float
            tensor, 1 or 0, where that stays on the device.

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
        self.skipped: bool | Tensor = False
        self.device_type = get_device().split(':')[0]
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type,
            init_scale=init_loss_scale,
            enabled=precision == 'fp16',
        )

    @property
    def skips_on_device(self) -> bool:
        """Whether the optimiser can skip a step that the host knows not of.

        Torch's fused steps can. Of others the host must wait for the
        gradients, which on a CPU costs nothing.
        """
        return self.device_type != 'cpu' and all(
            group.get('fused') for group in self.optimizer.param_groups
        )

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate the loss, scaled for fp16.

        Of a loss that is not finite every gradient becomes NaN, which the
        other processes see as well.
        """
        ok = loss.detach().isfinite()
        loss = loss * torch.where(ok, 1.0, math.nan)
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip and step, or skip a step whose gradients are not finite.

        In fp16 that also halves the loss scale. A gradient so large that its
        norm overflows counts as not finite.
        """
        self.loss_scaler.unscale_(self.optimizer)
        norms = self._clip_grad()
        finite = norms.isfinite().all()
        if self.skips_on_device:
            self.skipped = 1 - finite.float()
            self.optimizer.found_inf = self.skipped
            try:
                self.optimizer.step(**kwargs)
            finally:
                del self.optimizer.found_inf
        else:
            self.skipped = not finite  # waits for an accelerator
            if not self.skipped:
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
        """Return the optimiser's state and, for fp16, the loss scaler's."""
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
