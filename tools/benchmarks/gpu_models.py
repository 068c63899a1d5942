# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the steps of gpu.py share: their rows, models, views and a step."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
SCFS = 'configs/scfs_r50.py'
DINO = 'configs/dino/dino_resnet50_8xb32-mcrop-coslr-200e_in1k.py'
VIT = 'configs/scfs/scfs_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py'
DINO_VIT = 'configs/dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py'
PROTOTYPES = {'model.neck.num_prototypes': 4096}  # 65,536 say no more
# Networks that a CPU trains in tests: --device cpu.
TINY_NECK = {
    'model.neck.hidden_channels': 16,
    'model.neck.bottleneck_channels': 8,
    'model.neck.num_prototypes': 32,
}
TINY_SEARCH = {
    'model.search_neck.mid_channels': 4,
    'model.search_neck.hidden_channels': 16,
    'model.search_neck.out_channels': 10,
}
TINY_RESNET = {
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
}
TINY_VIT = {
    'model.backbone.arch': dict(
        _delete_=True,  # a name
        embed_dims=48,
        num_layers=3,
        num_heads=3,
        feedforward_channels=96,
    )
}
THREE_BLOCKS = {'model.backbone.out_indices': (0, 1, 2)}
TINY = {
    SCFS: TINY_RESNET | TINY_NECK | TINY_SEARCH,
    DINO: TINY_RESNET | TINY_NECK,
    VIT: TINY_VIT | THREE_BLOCKS | TINY_NECK | TINY_SEARCH,
    DINO_VIT: TINY_VIT | TINY_NECK,
}


class Check(NamedTuple):
    """A row that is right or wrong."""

    what: str
    found: str
    wanted: str
    ok: bool | None  #: None: it could not be judged on this machine.


class Figures(NamedTuple):
    """A row of what was measured."""

    what: str
    figures: dict[str, float]  #: By column.
    digits: int = 1  #: Behind the point.


def below(what: str, value: float, bound: float) -> Check:
    """Check that a difference is below a bound; NaN is not."""
    return Check(what, f'{value:.1e}', f'< {bound:g}', value < bound)


def build(
    config: str, device: str, precision: str = 'fp32', **settings: Any
) -> tuple[nn.Module, Any]:
    """Build a model and its optimizer wrapper.

    The weights depend on the config alone. Teacher and centers differ from
    what they begin with, and nothing is drawn at random in a step.

    Args:
        config (str): A pre-training config.
        device (str): "cuda" or "cpu".
        precision (str): Of the wrapper, or "fp64" for a model of this type.
        **settings: More of the optimizer wrapper.
    """
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    import mmscfs  # noqa: F401

    init_default_scope('mmpretrain')
    cfg = Config.fromfile(ROOT / config)
    is_tiny = not torch.cuda.is_available()
    small = TINY[config] if is_tiny else PROTOTYPES
    cfg.merge_from_dict(copy.deepcopy(small))  # it is changed
    if 'drop_path_rate' in cfg.model.backbone:
        cfg.model.backbone.drop_path_rate = 0.0
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Small residual branches, as trained networks have them: else
            # rounding grows from block to block.
            if name.endswith(('bn2.weight', 'bn3.weight')):
                parameter.fill_(0.2)
        for parameter in model.teacher.parameters():
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
        for center in model.centers:
            center.value.normal_(std=0.01)
    dtype = torch.float64 if precision == 'fp64' else torch.float32
    model.to(device, dtype).train()
    cfg.optim_wrapper.optimizer.lr = 1e-3  # the views are noise
    cfg.optim_wrapper.update(settings)
    cfg.optim_wrapper.precision = 'fp32' if precision == 'fp64' else precision
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def make_views(device: str, batch: int, *sizes: int) -> list[Tensor]:
    """Return views of noise (B, 3, S, S), the same on every device."""
    generator = torch.Generator().manual_seed(1)
    views = [
        torch.randn(batch, 3, size, size, generator=generator)
        for size in sizes
    ]
    return [view.to(device) for view in views]


def train_step(model: nn.Module, wrapper: Any, views: list[Tensor]) -> Tensor:
    """Make a whole training step; return the total of the losses."""
    with wrapper.optim_context(model):
        losses = model.loss(views)
    total, _ = model.parse_losses(losses)
    wrapper.backward(total)
    wrapper.step()
    wrapper.zero_grad()
    model.after_step(0.996, wrapper.skipped)
    return total.detach()


def flat_gradient(model: nn.Module) -> Tensor:
    """Return all gradients as one vector, in double precision on the CPU."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([g.flatten().double().cpu() for g in gradients])


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of a difference over that of what is expected."""
    return ((found - expected).norm() / expected.norm()).item()
