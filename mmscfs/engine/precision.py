# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a run computes in: ``--precision``, and TF32 for fp32 on GPUs."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

# mmengine's names for them, and none for its wrapper without autocast.
MMENGINES = {'fp32': None, 'fp16': 'float16', 'bf16': 'bfloat16'}
# What AmpOptimWrapper takes and OptimWrapper does not.
AMP_SETTINGS = ('dtype', 'loss_scale', 'use_fsdp')


def set_precision(cfg: Config, precision: str) -> None:
    """Have a config train in a precision, whichever it has.

    Everything else of ``optim_wrapper`` stays: optimizer, clipping, gradient
    accumulation, a loss scale.

    Args:
        cfg (Config): Changed in place. Its ``optim_wrapper.type`` is ours,
            which has the setting, or one of mmengine's two: AmpOptimWrapper
            takes the place of OptimWrapper, and the other way round.
        precision (str): "fp32", "fp16" with loss scaling, "bf16", or "auto":
            the machine's, see :func:`default_precision`; of mmengine's
            wrappers "auto" is its autocast's own, fp16 on a GPU.

    Raises:
        ValueError: The config trains with another wrapper, or with none.

    Example:
        >>> cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
        >>> set_precision(cfg, 'bf16')
        >>> cfg.optim_wrapper.type, cfg.optim_wrapper.dtype
        ('AmpOptimWrapper', 'bfloat16')
    """
    wrapper = cfg.get('optim_wrapper')
    if not wrapper:
        raise ValueError(
            f'--precision {precision}: the config has no optim_wrapper, so it '
            'does not train: leave --precision out'
        )
    kind = wrapper.get('type', 'OptimWrapper')
    name = kind if isinstance(kind, str) else kind.__name__
    name = name.split('.')[-1]
    if name == 'PerParamClipOptimWrapper':
        wrapper.precision = precision
    elif name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'--precision {precision}: optim_wrapper.type={name!r} has a '
            "precision of its kind. Set it there, or use 'OptimWrapper', "
            "'AmpOptimWrapper' or 'mmpretrain.PerParamClipOptimWrapper'"
        )
    elif precision == 'fp32':
        wrapper.type = 'OptimWrapper'
        for setting in AMP_SETTINGS:
            wrapper.pop(setting, None)
    else:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.dtype = MMENGINES.get(precision)
        wrapper.setdefault('loss_scale', 'dynamic')


def precision_of(wrapper: Any) -> str:
    """Return what the step of an optimizer wrapper computes in, e.g. "fp32".

    Args:
        wrapper (OptimWrapper): Ours or mmengine's.
    """
    if hasattr(wrapper, 'precision'):
        return str(wrapper.precision)
    if not hasattr(wrapper, 'loss_scaler'):
        return 'fp32'
    dtype = getattr(wrapper, 'cast_dtype', None)
    return str(dtype).removeprefix('torch.') if dtype else 'fp16'


def uses_tf32(cfg: Config, wrapper: Any) -> bool:
    """Whether a training's steps multiply matrices in TF32 on a GPU.

    Args:
        cfg (Config): With ``env_cfg.tf32``, True by default.
        wrapper (OptimWrapper): Its optimizer wrapper.

    Raises:
        ValueError: The setting is not True or False.
    """
    allowed = (cfg.get('env_cfg') or {}).get('tf32', True)
    if not isinstance(allowed, bool):
        raise ValueError(f'env_cfg.tf32={allowed!r} must be True or False')
    return allowed and precision_of(wrapper) == 'fp32'


@HOOKS.register_module()
class TF32Hook(Hook):
    """Multiply matrices in TF32 in the steps of a training in fp32.

    On GPUs from Ampere on the tensor cores multiply fp32 numbers of which
    they read 10 bits of mantissa, as many as fp16 has, and add in fp32.
    torch allows it in convolutions and not in products of matrices, which
    are most of a vision transformer. This hook allows it there, too, within
    a step of the training only: what evaluates multiplies in full fp32, and
    so do the losses of fp16 and bf16. On a CPU and on other GPUs it changes
    nothing. Our tools add this hook to every run.

    The setting is ``env_cfg.tf32``, True by default. False forbids TF32 in
    the convolutions of a training in fp32, too.
    """

    is_used = False

    def before_train(self, runner: Runner) -> None:
        """Read the setting."""
        wrapper = runner.optim_wrapper
        self.is_used = uses_tf32(runner.cfg, wrapper)
        if precision_of(wrapper) == 'fp32':
            torch.backends.cudnn.allow_tf32 = self.is_used

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        """Allow it, if the step is in fp32."""
        torch.backends.cuda.matmul.allow_tf32 = self.is_used

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        """Forbid it."""
        torch.backends.cuda.matmul.allow_tf32 = False
