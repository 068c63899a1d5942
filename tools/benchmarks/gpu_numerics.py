# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Steps of gpu.py: does a GPU compute what the CPU and one process do?"""

import argparse
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gpu_models import (
    DINO,
    DINO_VIT,
    SCFS,
    VIT,
    Check,
    below,
    build,
    flat_gradient,
    make_views,
    relative,
    train_step,
)
from torch import Tensor, nn

CASES = (('SCFS', SCFS), ('DINO', DINO), ('SCFS ViT-S', VIT))
# Largest relative differences of loss and gradient from the CPU in fp64. In
# double precision the code is compared; below, a ReLU that rounding turns on
# or off changes the gradient of a small batch by some percent.
BOUNDS = {
    'fp64': (1e-10, 1e-8),
    'fp32': (1e-5, 0.1),
    'tf32': (5e-3, 0.3),
    'fp16': (5e-3, 0.3),
    'bf16': (5e-2, 0.8),
}
ROUNDING = 1e-8  # in double precision
SMALL = (64, 64, 48, 48)  # px of the views
SHAPES = ((4, 16, 7, 7), (4, 16, 1, 1), (4, 16))  # of batch norm's inputs


def set_tf32(is_on: bool) -> None:
    """Let fp32 products use TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = is_on
    torch.backends.cudnn.allow_tf32 = is_on


def loss_and_gradient(
    config: str, device: str, precision: str
) -> tuple[float, Tensor]:
    """Return the total loss of a batch and the unscaled gradient."""
    set_tf32(precision == 'tf32')
    wanted = 'fp32' if precision == 'tf32' else precision
    # A first scale of 2^16 would overflow here, and then be halved.
    model, wrapper = build(config, device, wanted, init_loss_scale=256.0)
    views = [
        view.to(next(model.parameters()).dtype)
        for view in make_views(device, 8, *SMALL)
    ]
    with wrapper.optim_context(model):
        losses = model.loss(views)
    total, _ = model.parse_losses(losses)
    wrapper.backward(total)
    scale = wrapper.loss_scaler.get_scale()  # 1 without scaling
    return total.item(), flat_gradient(model) / scale


def parity(args: argparse.Namespace) -> Iterator[Check]:
    """Compare loss and gradient with those of the CPU in double precision."""
    precisions = [*BOUNDS]
    if args.device == 'cpu':  # it has no TF32, and would repeat itself
        precisions = ['fp32', 'fp16', 'bf16']
    for name, config in CASES:
        loss, gradient = loss_and_gradient(config, 'cpu', 'fp64')
        for precision in precisions:
            own_loss, own = loss_and_gradient(config, args.device, precision)
            bounds = BOUNDS[precision]
            difference = abs(own_loss - loss) / abs(loss)
            yield below(f'{name} {precision}: loss', difference, bounds[0])
            difference = relative(own, gradient)
            yield below(f'{name} {precision}: gradient', difference, bounds[1])


def state_of(model: nn.Module, wrapper: Any) -> dict[str, list[Tensor]]:
    """Return copies of what a step moves."""
    memory = [
        value
        for state in wrapper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    parts = {
        'weights': [p for p in model.parameters() if p.requires_grad],
        "optimizer's state": memory,
        'teacher': [*model.teacher.parameters()],
        'centers': [center.value for center in model.centers],
    }
    return {
        name: [x.detach().clone() for x in tensors]
        for name, tensors in parts.items()
    }


def overflow(args: argparse.Namespace) -> Iterator[Check]:
    """Let gradients overflow in fp16: nothing but the loss scale moves."""
    model, wrapper = build(SCFS, args.device, 'fp16')
    views = make_views(args.device, 4, *SMALL)
    train_step(model, wrapper, views)  # makes the optimizer's state
    scaler = wrapper.loss_scaler
    scale = 2.0**60
    scaler.load_state_dict(scaler.state_dict() | dict(scale=scale))
    before = state_of(model, wrapper)
    train_step(model, wrapper, views)
    after = state_of(model, wrapper)
    skipped = bool(wrapper.skipped)
    yield Check('step', 'skipped' if skipped else 'taken', 'skipped', skipped)
    found = scaler.get_scale() / scale
    yield Check('loss scale', f'x {found:g}', 'x 0.5', found == 0.5)
    for name, tensors in after.items():
        pairs = [*zip(tensors, before[name], strict=True)]
        stands = bool(pairs) and all(torch.equal(a, b) for a, b in pairs)
        is_finite = all(bool(x.isfinite().all()) for x in tensors)
        text = 'stand still' if stands else 'moved'
        text += '' if is_finite else ', not finite'
        yield Check(name, text, 'stand still', stands and is_finite)


def two_processes(args: argparse.Namespace) -> Iterator[Check]:
    """Compare two processes on one device, over gloo, with one process."""
    # CUDA does not survive a fork.
    method = 'fork' if args.device == 'cpu' else 'spawn'
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            meet, (folder, args.device), nprocs=2, start_method=method
        )
        found = [
            torch.load(Path(folder, f'{rank}.pt'), weights_only=True)
            for rank in (0, 1)
        ]
    if args.device == 'cpu':
        yield Check('SyncBN', 'not run', 'needs a GPU', None)
    for case, *differing in zip(
        found[0]['norms'],
        *(own['norms'].values() for own in found),
        strict=True,
    ):
        number = sum(differing)
        text = f'{number} of 12 tensors differ' if number else 'the same bits'
        what = f'our SyncBN beside torch, {case}'
        yield Check(what, text, 'the same bits', not number)
    alone = share_of_a_step(args.device, slice(None))
    both = found[0]['step']
    loss = sum(own['step']['loss'] for own in found) / 2
    difference = relative(loss, alone['loss'])
    yield below('two processes beside one: loss', difference, ROUNDING)
    for part in ('gradient', 'centers'):
        difference = relative(both[part], alone[part])
        what = f'two processes beside one: {part}'
        yield below(what, difference, ROUNDING)
    same = all(
        torch.equal(both[part], found[1]['step'][part])
        for part in ('gradient', 'centers')
    )
    text = 'the same bits' if same else 'differ'
    yield Check('the two processes', text, 'the same bits', same)


def meet(rank: int, folder: str, device: str) -> None:
    """Be one of two processes; save what it found."""
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    norms = compare_norms(rank) if device == 'cuda' else {}
    half = slice(4 * rank, 4 * (rank + 1))
    step = share_of_a_step(device, half)
    torch.save(dict(norms=norms, step=step), Path(folder, f'{rank}.pt'))
    dist.destroy_process_group()


def compare_norms(rank: int) -> dict[str, int]:
    """Compare our synchronized batch norm with torch's.

    The processes have batches of other sizes.

    Returns:
        dict[str, int]: By case how many of six tensors differ: output, three
        gradients and two statistics.
    """
    from mmscfs.engine.distributed import SyncBatchNorm

    found = {}
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float16):
            results = []
            for own in (SyncBatchNorm, nn.SyncBatchNorm):
                torch.manual_seed(rank)
                x = torch.randn(shape[0] + rank, *shape[1:]).cuda().to(dtype)
                if x.ndim == 4:
                    x = x.contiguous(memory_format=torch.channels_last)
                norm = own(shape[1]).cuda().train()
                y = norm(x.requires_grad_())
                y.backward(torch.randn(y.shape).to(y))
                results.append(
                    [
                        *(y, x.grad, norm.weight.grad, norm.bias.grad),
                        *(norm.running_mean, norm.running_var),
                    ]
                )
            sizes = 'x'.join(map(str, shape[1:]))
            case = f'{sizes} {str(dtype).removeprefix("torch.")}'
            found[case] = sum(
                not torch.equal(a, b) for a, b in zip(*results, strict=True)
            )
    return found


def share_of_a_step(device: str, share: slice) -> dict[str, Tensor]:
    """Return what a step finds with a share of eight images.

    In double precision, so that the rest is rounding. Several processes
    average gradients and centers, and synchronize batch norm, which a CPU
    cannot: its network has none.
    """
    from mmscfs.engine.distributed import GPUDistributedDataParallel

    config = SCFS if device == 'cuda' else DINO_VIT
    model, wrapper = build(config, device, 'fp64')
    run: nn.Module = model
    if dist.is_initialized():
        if device == 'cuda':
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        run = GPUDistributedDataParallel(model)  # has our batch norm
    views = make_views(device, 8, *SMALL)
    views = [view[share].double() for view in views]
    total, _ = model.parse_losses(run(views, mode='loss'))
    wrapper.backward(total)
    gradient = flat_gradient(model)
    model.after_step(0.996)
    centers = torch.cat([center.value for center in model.centers])
    return dict(
        loss=total.detach().double().cpu(),
        gradient=gradient,
        centers=centers.double().cpu(),
    )
