# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

DTYPES = {'fp32': None, 'fp16': torch.float16, 'bf16': torch.bfloat16}


def default_precision() -> str:
    """Return the fastest safe precision of this machine.

    fp16 with loss scaling on an accelerator, as the authors train; on a CPU
    bf16 if its instructions include it, fp32 otherwise.
    """
    if get_device() != 'cpu':
        return 'fp16'
    features = torch.cpu.get_capabilities()
    has_bf16 = features.get('amx_bf16') or features.get('avx512_bf16')
    return 'bf16' if has_bf16 else 'fp32'


@torch.no_grad()
def clip_each_gradient_(gradients: list[Tensor], max_norm: float) -> None:
    """Scale every gradient whose own L2 norm exceeds ``max_norm`` down to it.

    DINO clips each parameter by itself, not all of them by a common norm.
    Nothing is read back from an accelerator; on a CPU, where that is free,
    the norms tell which gradients need no second pass.
    """
    if not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))
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


@OPTIM_WRAPPERS.register_module()
class PerParamClipOptimWrapper(OptimWrapper):
    """Optimiser wrapper with per-parameter clipping and mixed precision.

    Args:
        precision (str): 'fp32'; 'fp16' with loss scaling; 'bf16'; or 'auto':
            fp16 on an accelerator, on a CPU bf16 if it has the instructions
            and fp32 if not. Defaults to 'auto'.
        init_loss_scale (float): First loss scale of fp16; it doubles after
            2000 good steps and halves after a skipped one. Defaults to 2^16.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`;
            ``clip_grad=dict(max_norm=3.0)`` clips each parameter.

    Raises:
        ValueError: The precision, the scale or ``clip_grad`` is not valid,
            or the optimiser is fused and fp16.
    """

    def __init__(
        self,
        precision: str = 'auto',
        init_loss_scale: float = 2.0**16,
        **kwargs,
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
        if precision == 'fp16' and getattr(
            self.optimizer, '_step_supports_amp_scaling', False
        ):
            raise ValueError(
                'optim_wrapper.optimizer.fused=True does not go with '
                "precision='fp16': a step that the loss scaler skips would "
                "move the teacher; leave fused out, or take 'bf16'"
            )
        self.precision = precision
        self.device_type = get_device().split(':')[0]
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type,
            init_scale=init_loss_scale,
            enabled=precision == 'fp16',
        )

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Back-propagate the loss, scaled for fp16."""
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs) -> None:
        """Clip and step, or skip a step whose fp16 gradients overflowed.

        Whether they did is the one thing that torch's loss scaler reads from
        the device in a step.
        """
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def _clip_grad(self) -> None:
        gradients = [
            parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]
        clip_each_gradient_(gradients, **self.clip_grad_kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module):
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
