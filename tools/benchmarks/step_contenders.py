# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The training steps that step.py compares."""

import argparse
import contextlib
from collections.abc import Callable

from measuring import parse_settings

TEXTBOOK, OURS, FLOOR = 'textbook form', 'mmscfs', 'bare backbone'


class Step:
    """A contender's training step.

    Args:
        forward (Callable): Returns the total of the losses.
        update (Callable, optional): Moves the weights.
        context (Callable): Returns the precision's context.
    """

    def __init__(
        self,
        forward: Callable,
        update: Callable | None = None,
        context: Callable = contextlib.nullcontext,
    ) -> None:
        self.forward, self.update, self.context = forward, update, context

    def backward(self) -> float:
        """Run forward and backward pass, return the total."""
        with self.context():
            total = self.forward()
        total.backward()
        return total.detach()


def contenders(args: argparse.Namespace) -> tuple[dict[str, Step], object]:
    """Build the steps by name, and the model of ours."""
    import torch
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    import mmscfs  # noqa: F401

    init_default_scope('mmpretrain')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(parse_settings(args.cfg_options))
    if 'search_neck' in cfg.model:
        cfg.model.search_views = args.search_views
    elif not args.no_textbook:
        raise SystemExit(
            f'error: --config {args.config}: the textbook form is that of '
            'SCFS: add --no-textbook'
        )
    if args.compile:
        cfg.model.compile = True
    cfg.optim_wrapper.precision = args.precision
    cfg.optim_wrapper.optimizer.lr = 1e-3  # the views are noise
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = MODELS.build(cfg.model).to(device).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    sizes = [args.global_size] * 2 + [args.local_size] * args.num_local
    views = [
        torch.randn(args.batch, 3, size, size, device=device) for size in sizes
    ]
    global_views = model.stack_views(views[:2])
    local_views = model.stack_views(views[2:]) if views[2:] else None

    def ours():
        return model.parse_losses(model.loss(views))[0]

    def floor():
        outputs = model.backbone(global_views)
        if local_views is not None:
            outputs += model.backbone(local_views)
        with torch.no_grad():
            model.teacher.backbone(global_views)
        return sum(x.float().mean() for x in outputs)

    def update():
        wrapper.step()
        wrapper.zero_grad()
        model.after_step(0.996)

    def precision():
        return wrapper.optim_context(model)

    steps = {}
    if not args.no_textbook:
        from textbook import TextbookSCFS

        plain = TextbookSCFS(model).train()

        def plain_update():
            plain.update()
            plain.optimizer.zero_grad()

        steps[TEXTBOOK] = Step(
            lambda: plain.loss(views),
            plain_update,
            precision if device == 'cuda' else contextlib.nullcontext,
        )
    steps[OURS] = Step(ours, update, precision)
    # Its gradients are cleared by the update of ours, which follows.
    steps[FLOOR] = Step(floor, model.zero_grad, precision)
    return steps, model
