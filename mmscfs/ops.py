# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""mmcv's operators by torchvision's, where mmcv is not compiled.

mmdet imports every operator of mmcv when it is loaded, and its common
detectors call three: NMS, RoIAlign and the sigmoid focal loss. torchvision has
these, compiled for every platform. So ``mmcv-lite``, which needs no compiler,
is enough for Mask R-CNN, Faster R-CNN, RetinaNet, FCOS, ATSS and DETR.
``import mmscfs`` installs the stand-in. A compiled ``mmcv._ext`` always wins.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, NoReturn

import mmcv
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .compatibility import compile_mmcv

EXTENSION = 'mmcv._ext'
OURS = "torchvision's NMS, RoIAlign and sigmoid focal loss"
# What in mmcv.ops calls these operators only.
SUPPORTED = (
    'RoIAlign',
    'RoIAlignFunction',
    'SigmoidFocalLoss',
    'SigmoidFocalLossFunction',
)


def install_operators() -> None:
    """Install the stand-in if mmcv has no compiled extension."""
    if EXTENSION not in sys.modules and find_spec(EXTENSION) is None:
        stand_in = TorchvisionOperators()
        sys.modules[EXTENSION] = stand_in
        mmcv._ext = stand_in


def is_compiled() -> bool:
    """Return whether mmcv's operators are its own."""
    return not isinstance(sys.modules.get(EXTENSION), TorchvisionOperators)


def describe_operators() -> str:
    """Return the log line that says which operators are in use."""
    return f'Operators of mmcv: {"compiled" if is_compiled() else OURS}'


def check_operators(model: nn.Module) -> None:
    """Check that a model needs no operator that is missing here.

    Args:
        model (nn.Module): A detector of mmdet, or any other model.

    Raises:
        ValueError: Names the parts that do, the operators, and how to
            install compiled mmcv.

    Example:
        >>> check_operators(MODELS.build(cfg.model))
    """
    if is_compiled():
        return
    parts = [
        f'{name or "the model"} ({operator})'
        for name, module in model.named_modules()
        for operator in [missing_operator(module)]
        if operator
    ]
    if parts:
        more = f' and {len(parts) - 1} more' if parts[1:] else ''
        raise ValueError(
            f'the model needs compiled operators of mmcv: {parts[0]}{more}. '
            f'{how_to_compile()}; or use a model without these parts'
        )


def missing_operator(module: nn.Module) -> str:
    """Return the class of mmcv.ops, or the NMS, that a module lacks here."""
    for kind in type(module).__mro__:
        file = getattr(sys.modules.get(kind.__module__), '__dict__', {})
        used = [kind] if 'ext_module' in file else []
        # An operator as a function: deform_conv2d = DeformConv2dFunction.apply
        used += [
            value.__self__
            for value in file.values()
            if isinstance(value, MethodType | BuiltinMethodType)
            and isinstance(value.__self__, type)
            and value.__self__.__module__ != kind.__module__
        ]
        for operator in used:
            if (
                operator.__module__.startswith('mmcv.ops.')
                and operator.__name__ not in SUPPORTED
            ):
                return operator.__name__
    if getattr(module, 'pool_mode', 'avg') == 'max':
        return "RoIAlign with pool_mode='max'"
    settings = [
        getattr(module, f'{split}_cfg', 0) for split in ('test', 'train')
    ]
    return next(other_nms(settings), '')


def other_nms(settings: Any) -> Iterator[str]:
    """Yield the types of NMS in nested settings, but for the plain one."""
    if isinstance(settings, Mapping):
        nms = settings.get('nms')
        if isinstance(nms, Mapping):
            kind: Any = nms.get('type', 'nms')
            kind = getattr(kind, '__name__', kind)  # or the function itself
            if kind != 'nms':
                yield kind
        if settings.get('type') == 'ScoreHLRSampler':  # PISA's
            yield 'nms_match'
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for value in settings:
        yield from other_nms(value)


def how_to_compile() -> str:
    """Return what is here, and the command that installs the rest."""
    return (
        f'This environment has {OURS} only. To compile mmcv: {compile_mmcv()}'
    )


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return fp32 for half precision: torchvision's CPU kernels lack it."""
    return torch.promote_types(tensor.dtype, torch.float32)


class TorchvisionOperators(ModuleType):
    """A module with the functions of ``mmcv._ext`` that detectors call.

    The signatures are those of mmcv's bindings: results are written into the
    given tensors. Half precisions are computed in fp32. Each other name is a
    function that raises.
    """

    def __init__(self) -> None:
        super().__init__(EXTENSION, __doc__)
        self.__spec__ = ModuleSpec(EXTENSION, None, origin=__name__)

    def __getattr__(self, name: str) -> Any:
        """Return a function that raises: mmcv asks for each at import."""
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise_missing(name)

        return missing

    @staticmethod
    def get_compiling_cuda_version() -> str:
        """Return what mmcv returns without CUDA."""
        return 'not available'

    @staticmethod
    def get_compiler_version() -> str:
        """Return what collected environments show."""
        return "not compiled, torchvision's operators"

    @staticmethod
    def nms(
        boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
    ) -> Tensor:
        """Return the indices of the boxes to keep, by falling score.

        Args:
            boxes (Tensor): (N, 4), x1, y1, x2, y2.
            scores (Tensor): (N).
            iou_threshold (float): A box is dropped if its overlap with a
                kept one is larger.
            offset (int): 0, or 1 where x2 and y2 are pixels of the box.

        Of equal scores the first box comes first, on every machine. mmcv's
        own leaves their order to torch's sort, which may depend on the CPU.
        """
        from torchvision.ops import nms  # slow, and others do without

        boxes = boxes.to(compute_dtype(boxes))
        if offset:
            far = boxes.new_tensor([0, 0, offset, offset])
            boxes = boxes + far
        return nms(boxes, scores.to(boxes), iou_threshold)

    @staticmethod
    def roi_align_forward(
        input: Tensor,
        rois: Tensor,
        output: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Write the pooled (R, C, h, w) of (B, C, H, W) into ``output``.

        ``rois`` are (R, 5): image, x1, y1, x2, y2; ``argmax_*`` are of
        maximum pooling.

        Raises:
            NotImplementedError: ``pool_mode`` is 0, maximum pooling.
        """
        from torchvision.ops import roi_align

        if pool_mode == 0:
            raise_missing("roi_align_forward with pool_mode='max'")
        dtype = compute_dtype(input)
        output.copy_(
            roi_align(
                input.to(dtype),
                rois.to(dtype),
                (aligned_height, aligned_width),
                spatial_scale,
                sampling_ratio,
                aligned,
            )
        )

    @staticmethod
    def roi_align_backward(
        grad_output: Tensor,
        rois: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        grad_input: Tensor,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Write the gradient of the (B, C, H, W) into ``grad_input``."""
        from torchvision.ops import roi_align

        dtype = compute_dtype(grad_output)
        grad, rois = grad_output.to(dtype), rois.to(dtype)
        size = aligned_height, aligned_width
        if torch.are_deterministic_algorithms_enabled():
            # The kernel refuses on GPUs: through torchvision's own way then.
            maps = grad.new_zeros(grad_input.shape).requires_grad_()
            with torch.enable_grad():
                pooled = roi_align(
                    maps, rois, size, spatial_scale, sampling_ratio, aligned
                )
            (grad,) = torch.autograd.grad(pooled, maps, grad)
        else:
            grad = torch.ops.torchvision._roi_align_backward(
                grad,
                rois,
                spatial_scale,
                *size,
                *grad_input.shape,
                sampling_ratio,
                aligned,
            )
        grad_input.copy_(grad)

    @staticmethod
    def sigmoid_focal_loss_forward(
        input: Tensor,
        target: Tensor,
        weight: Tensor,
        output: Tensor,
        gamma: float,
        alpha: float,
    ) -> None:
        """Write the loss of each of (N, C) logits into ``output``.

        Args:
            input (Tensor): (N, C), logits.
            target (Tensor): (N), the class; C is background.
            weight (Tensor): (C), of each target's class; or empty.
            output (Tensor): (N, C).
            gamma (float): The exponent.
            alpha (float): The weight of positives, 0 to 1.
        """
        from torchvision.ops import sigmoid_focal_loss

        logits, labels = focal_inputs(input, target)
        loss = sigmoid_focal_loss(logits, labels, alpha, gamma)
        output.copy_(loss * focal_weights(weight, target, loss))

    @staticmethod
    def sigmoid_focal_loss_backward(
        input: Tensor,
        target: Tensor,
        weight: Tensor,
        grad_input: Tensor,
        gamma: float,
        alpha: float,
    ) -> None:
        """Write the gradient of the summed loss into ``grad_input``."""
        logits, labels = focal_inputs(input, target)
        # Not by autograd, which multiplies 0 by infinity where p is 1.
        p, q = logits.sigmoid(), (-logits).sigmoid()
        positive = q**gamma * (gamma * p * F.logsigmoid(logits) - q) * alpha
        negative = p**gamma * (p - gamma * q * F.logsigmoid(-logits))
        grad = torch.where(labels > 0, positive, (1 - alpha) * negative)
        grad_input.copy_(grad * focal_weights(weight, target, grad))


def focal_inputs(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and labels (N, C), 0 or 1, at least in fp32."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    logits = logits.to(compute_dtype(logits))
    return logits, (target[:, None] == classes).to(logits)


def focal_weights(weight: Tensor, target: Tensor, like: Tensor) -> Tensor:
    """Return each target's weight (N, 1), or 1; that of background is 1."""
    if not weight.numel():
        return like.new_ones(())
    return F.pad(weight.to(like), (0, 1), value=1.0)[target][:, None]


def raise_missing(operator: str) -> NoReturn:
    """Raise for an operator that is called, but not here.

    Raises:
        NotImplementedError: Names it, and how to install compiled mmcv.
    """
    raise NotImplementedError(
        f"mmcv's operator {operator} is not installed. {how_to_compile()}"
    )
