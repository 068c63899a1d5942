#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Time a training step of SCFS beside its textbook form and the backbone.

All run in one process, in turn, on the same views and weights, without a
loader. A step is the losses' forward and backward pass, then the update:
clipping, optimizer, teacher and centers. The textbook form (textbook.py) is
written from the equations and runs in fp32 on a CPU, and in the precision of
the others on a GPU. The bare backbone is the floor: the student's forward and
backward pass on all views and the teacher's forward pass, nothing else.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from measuring import (
    MIB,
    PeakMemory,
    add_cfg_options,
    add_counts,
    at_least,
    commanded,
    config,
    make_parser,
    make_table,
    ratio,
)

ROOT = Path(__file__).resolve().parent.parent.parent
LEAST_IMAGES = 8  # of RepresentationHook, whose import takes seconds
TEXTBOOK, OURS, FLOOR = 'textbook form', 'mmscfs', 'bare backbone'
EXAMPLES = """
examples:
  # fp32, one global view searched; two minutes on two cores
  python tools/benchmarks/step.py --precision fp32 --search-views first
  # what this machine's default precision gains
  python tools/benchmarks/step.py
  # where the time goes
  python tools/benchmarks/step.py --profile
  # what another setting takes
  python tools/benchmarks/step.py --no-textbook --num-local 4 --cfg-options \\
      model.neck.num_prototypes=4096
  # what RepresentationHook takes; five minutes on two cores
  python tools/benchmarks/step.py --no-textbook --rounds 3 --figures 256
  # on a GPU
  python tools/benchmarks/step.py --batch 64 --precision bf16 --compile
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--config',
        type=config,
        default=str(ROOT / 'configs/scfs_r50.py'),
        metavar='FILE',
        help='recipe whose step is timed (default: configs/scfs_r50.py)',
    )
    add_counts(
        parser,
        batch=('images', 4, 2),
        global_size=('side of the two global views, px', 224, 1),
        local_size=('side of the local views, px', 96, 1),
        num_local=('local views of an image', 8, 0),
        rounds=('rounds, after one that is not counted', 5, 1),
        figures=('images for RepresentationHook, timed as well', 0, 0),
    )
    parser.add_argument(
        '--search-views',
        choices=['all', 'first'],
        default='all',
        help='global views that are searched: both, or the first as in the '
        "authors' release (default: %(default)s)",
    )
    parser.add_argument(
        '--precision',
        choices=['auto', 'fp32', 'fp16', 'bf16'],
        default='auto',
        help="precision of a step (default: %(default)s, the wrapper's "
        'choice)',
    )
    parser.add_argument(
        '--compile', action='store_true', help='set model.compile=True'
    )
    parser.add_argument(
        '--threads',
        type=at_least(1),
        metavar='N',
        help='threads of torch (default: chosen by torch)',
    )
    for option, text in (
        ('profile', "print the shares of the step's parts instead"),
        ('no-textbook', 'leave out the textbook form'),
        ('json', 'print one line of json instead'),
    ):
        parser.add_argument(f'--{option}', action='store_true', help=text)
    add_cfg_options(parser, 'model.neck.num_prototypes=4096')
    args = parser.parse_args(argv)
    if args.num_local == 0 and not args.no_textbook:
        parser.error('--num-local 0: the textbook form needs local views')
    if 0 < args.figures < LEAST_IMAGES:
        parser.error(
            f'--figures {args.figures}: the figures need {LEAST_IMAGES} '
            'images or more; 0 leaves them out'
        )
    return args


class Step(NamedTuple):
    """A training step that is timed.

    Attributes:
        forward (Callable): Returns the total of the losses.
        update (Callable): Moves the weights.
        context (Callable): Returns the precision's context.
        propagate (Callable): Takes the total back through the networks; by
            default as it is, without fp16's loss scale.
    """

    forward: Callable
    update: Callable
    context: Callable
    propagate: Callable = lambda total: total.backward()

    def backward(self) -> Any:
        """Run forward and backward pass, return the total."""
        with self.context():
            total = self.forward()
        self.propagate(total)
        return total.detach()


def build_steps(args: argparse.Namespace) -> tuple[dict[str, Step], Any]:
    """Build the steps by name, and the model of ours.

    Raises:
        ValueError: The textbook form does not have the config's method.
    """
    import torch
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    from mmscfs.engine.precision import set_precision, uses_tf32

    init_default_scope('mmpretrain')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if 'search_neck' in cfg.model:
        cfg.model.search_views = args.search_views
    elif not args.no_textbook:
        raise ValueError(
            f'--config {args.config}: the textbook form is that of '
            'SCFS: add --no-textbook'
        )
    if args.compile:
        cfg.model.compile = True
    set_precision(cfg, args.precision)
    cfg.optim_wrapper.optimizer.lr = 1e-3  # the views are noise
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = MODELS.build(cfg.model).to(device).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    torch.backends.cuda.matmul.allow_tf32 = uses_tf32(cfg, wrapper)
    sizes = [args.global_size] * 2 + [args.local_size] * args.num_local
    views = [
        torch.randn(args.batch, 3, size, size, device=device) for size in sizes
    ]
    stacks = [
        model.stack_views(part) for part in (views[:2], views[2:]) if part
    ]

    def floor():
        outputs = [x for stack in stacks for x in model.backbone(stack)]
        with torch.no_grad():
            model.teacher.backbone(stacks[0])
        return sum(x.float().mean() for x in outputs)

    def update():
        wrapper.step()
        wrapper.zero_grad()
        model.after_step(0.996, wrapper.skipped)

    def precision():
        return wrapper.optim_context(model)

    steps = {}
    if not args.no_textbook:
        from textbook import TextbookSCFS

        plain = TextbookSCFS(model).train()
        context = precision if device == 'cuda' else contextlib.nullcontext
        steps[TEXTBOOK] = Step(
            lambda: plain.loss(views), plain.update, context
        )
    steps[OURS] = Step(
        lambda: model.parse_losses(model.loss(views))[0],
        update,
        precision,
        wrapper.backward,
    )
    # Its gradients are cleared by the update of ours, which follows.
    steps[FLOOR] = Step(floor, model.zero_grad, precision)
    return steps, model


def figure_steps(args: argparse.Namespace, model: Any, folder: str) -> dict:
    """Build what RepresentationHook does with images that are made."""
    import torch
    from loader_pipelines import make_images
    from mmengine.config import Config
    from mmpretrain.registry import DATASETS, MODELS

    from mmscfs.engine.hooks import representation_hook as hook

    cfg = Config.fromfile(args.config)
    preprocessor = MODELS.build(cfg.data_preprocessor)
    model.data_preprocessor = preprocessor.to(next(model.parameters()).device)
    make_images(Path(folder), args.figures, (500, 375), seed=0)
    pipeline = cfg.train_dataloader.dataset.pipeline
    data = dict(type='ImageFiles', data_root=folder, pipeline=pipeline)
    dataset = DATASETS.build(data)
    collect = partial(hook.collect, model, dataset, args.figures, num_views=4)
    pooled, patches = zip(*collect().values(), strict=True)
    samples = [own.flatten(0, 1) for own in pooled]
    patches = [own for own in patches if own.shape[1] >= hook.LEAST_PATCHES]
    zero = torch.zeros((), requires_grad=True)

    def step(run):  # with nothing to differentiate, and no update
        return Step(lambda: zero * len(run()), bool, contextlib.nullcontext)

    return {
        'views and features': step(collect),
        'RankMe': step(lambda: [*map(hook.rankme, samples)]),
        'alpha-ReQ': step(lambda: [*map(hook.alpha_req, samples)]),
        'LiDAR': step(lambda: [*map(hook.lidar, pooled)]),
        'DSE': step(lambda: [*map(hook.dse_terms, patches)]),
    }


def measure(steps: dict[str, Step], rounds: int, progress: bool) -> dict:
    """Time the steps in turn.

    Returns:
        dict: By name: seconds of "backward" and of "update" (lists), the
        first "total", and the "memory" (bytes) of a step: on a CPU beyond
        weights and states, on a GPU with those of all.
    """
    import torch
    from rich.progress import track

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    results = {name: dict(backward=[], update=[]) for name in steps}
    for turn in track(
        range(rounds + 2),
        'rounds (two are not counted)',
        disable=not progress,
        transient=True,
    ):
        for name, step in steps.items():
            result = results[name]
            # The first round makes the optimizer's state, the second
            # measures memory, which costs time.
            memory = PeakMemory(device) if turn == 1 else None
            with memory or contextlib.nullcontext():
                synchronize()
                start = time.perf_counter()
                total = step.backward()
                synchronize()
                middle = time.perf_counter()
                step.update()
                synchronize()
                end = time.perf_counter()
            if turn == 0:
                result['total'] = total.item()
            elif turn == 1:
                result['memory'] = memory.bytes
            else:
                result['backward'].append(middle - start)
                result['update'].append(end - middle)
    return results


def report(results: dict, args: argparse.Namespace) -> None:
    """Print the table."""
    import torch
    from rich.console import Console

    from mmscfs.engine.optimizers import default_precision

    precision = args.precision
    if precision == 'auto':
        precision = f'{default_precision()} (auto)'
    device = 'GPU'
    if not torch.cuda.is_available():
        device = f'CPU, {torch.get_num_threads()} threads'
    table = make_table(
        f'batch {args.batch}, {args.search_views} searched, {precision}, '
        f'{device}, medians of {args.rounds} rounds',
        '',
        *('forward, backward (s)', 'update (s)', 'images / s'),
        *('textbook / it', 'it / backbone', 'memory (MiB)'),
    )
    steps = {
        name: [*map(sum, zip(r['backward'], r['update'], strict=True))]
        for name, r in results.items()
    }
    names = [name for name in (TEXTBOOK, OURS, FLOOR) if name in results]
    figures = [name for name in results if name not in names]
    for name in names:
        result, gain, cost = results[name], '-', '-'
        if TEXTBOOK in results and name != FLOOR:
            gain = f'{ratio(steps[TEXTBOOK], steps[name]):.2f}'
        if name != FLOOR:
            floor = results[FLOOR]['backward']
            cost = f'{ratio(result["backward"], floor):.2f}'
        table.add_row(
            name,
            f'{statistics.median(result["backward"]):.3f}',
            f'{statistics.median(result["update"]):.3f}',
            f'{args.batch / statistics.median(steps[name]):.2f}',
            gain,
            cost,
            f'{result["memory"] / MIB:.0f}',
        )
    console = Console(width=110)
    console.print(table)
    console.print(
        'textbook / it: whole steps; it / backbone: forward and backward'
    )
    if TEXTBOOK in results:
        totals = [results[name]['total'] for name in (TEXTBOOK, OURS)]
        difference = abs(totals[0] - totals[1]) / abs(totals[0])
        console.print(f'totals differ by {difference:.1e} of their size')
    if figures:
        shares = {name: ratio(steps[name], steps[OURS]) for name in figures}
        parts = ', '.join(f'{n} {share:.2f}' for n, share in shares.items())
        console.print(
            f'figures of {args.figures} images take as long as '
            f'{sum(shares.values()):.2f} steps: {parts}'
        )


@commanded('nothing is printed')
def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, return its exit code."""
    args = parse_args(argv)

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    steps, model = build_steps(args)
    if args.profile:
        from step_profile import profile

        profile(steps[OURS], model)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if args.figures:
            steps |= figure_steps(args, model, folder)
        results = measure(steps, args.rounds, progress=not args.json)
    if args.json:
        print(json.dumps(results))
    else:
        report(results, args)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
