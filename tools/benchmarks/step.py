#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Time one SCFS step beside the textbook form and the bare backbone.

All three run in one process, in turn, on the same views and weights: forward
and backward of the losses (no optimiser, no loader). The textbook form is
written from the equations: a loop over pairs of views, a loop over views in
the search, the default memory format. The bare backbone is the floor: the
student's forward and backward on all views and the teacher's forward.
"""

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmscfs  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent.parent


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: python tools/benchmarks/step.py --batch 4 '
        '--search-views first',
    )
    parser.add_argument('--config', default=ROOT / 'configs/scfs_r50.py')
    parser.add_argument('--batch', type=int, default=4, help='default: 4')
    parser.add_argument('--global-size', type=int, default=224)
    parser.add_argument('--local-size', type=int, default=96)
    parser.add_argument('--num-local', type=int, default=8)
    parser.add_argument(
        '--search-views', choices=['first', 'all'], default='first'
    )
    parser.add_argument('--rounds', type=int, default=5, help='default: 5')
    parser.add_argument('--threads', type=int, help="default: torch's")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    for name in ('batch', 'rounds', 'num_local'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return args


def cross_entropy(target, logits, temperature):
    """-P' log P of one pair, a mean over the batch."""
    log_p = F.log_softmax(logits.float() / temperature, dim=-1)
    return -(target * log_p).sum(-1).mean()


def plain_losses(model, views):
    """The total of Eq. 11 in textbook form."""
    head, teacher = model.head, model.teacher
    tau, tau_teacher = head.student_temp, head.teacher_temp
    batch, num_local = len(views[0]), len(views) - 2
    s_global = model.backbone(torch.cat(views[:2]))
    s_local = model.backbone(torch.cat(views[2:]))
    with torch.no_grad():
        t_global = teacher.backbone(torch.cat(views[:2]))
        t_logits = teacher.neck([t_global[-1].mean((2, 3))]).split(batch)
        targets = [
            F.softmax((x.float() - head.center.value) / tau_teacher, -1)
            for x in t_logits
        ]
    s_logits = model.neck(
        [s_global[-1].mean((2, 3)), s_local[-1].mean((2, 3))]
    ).split(batch)
    terms = [
        cross_entropy(target, logits, tau)
        for t, target in enumerate(targets)
        for v, logits in enumerate(s_logits)
        if t != v
    ]
    total = sum(terms) / len(terms)
    searched = 1 if model.search_views == 'first' else 2
    for layer, projector in enumerate(model.search_neck.projectors):
        t_projector = teacher.search_neck.projectors[layer]
        center = head.search_centers[layer].value
        g_logits = projector(s_global[layer]).split(batch)
        l_logits = projector(s_local[layer]).split(batch)
        with torch.no_grad():
            t_outputs = t_projector(t_global[layer]).split(batch)
            g_targets = [
                F.softmax((x.float() - center) / tau_teacher, -1)
                for x in t_outputs
            ]
            found = []
            for keys in t_global[layer].split(batch)[:searched]:
                for query_map in s_local[layer].split(batch):
                    query = query_map.mean((2, 3))[:, :, None, None]
                    attention = F.cosine_similarity(query, keys, dim=1)
                    found.append(attention[:, None] * keys)
            found = t_projector(torch.cat(found)).split(batch)
            l_targets = [F.softmax(x.float() / tau_teacher, -1) for x in found]
        total = total + 0.25 * cross_entropy(g_targets[0], g_logits[1], tau)
        total = total + 0.25 * cross_entropy(g_targets[1], g_logits[0], tau)
        terms = [
            cross_entropy(target, l_logits[i % num_local], tau)
            for i, target in enumerate(l_targets)
        ]
        total = total + 0.5 * sum(terms) / len(terms)
    return total


def our_losses(model, views):
    """The same total from the model."""
    losses = model.loss(views)
    return sum(value for key, value in losses.items() if 'loss' in key)


def backbone_only(model, views):
    """A scalar that needs the backbone's work and little more."""
    global_views = torch.cat(views[:2])
    outputs = model.backbone(global_views) + model.backbone(
        torch.cat(views[2:])
    )
    with torch.no_grad():
        model.teacher.backbone(global_views)
    return sum(x.mean() for x in outputs)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cfg.model.search_views = args.search_views
    ours = MODELS.build(cfg.model).to(device).train()
    plain = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)
    views = [
        torch.randn(args.batch, 3, size, size, device=device)
        for size in [args.global_size] * 2 + [args.local_size] * args.num_local
    ]
    channels_last = [
        view.to(memory_format=torch.channels_last) for view in views
    ]
    contenders = {
        'textbook form': (plain_losses, plain, views),
        'mmscfs': (our_losses, ours, views),
        'bare backbone': (backbone_only, ours, channels_last),
    }
    with torch.no_grad():
        totals = [
            function(model, inputs).item()
            for function, model, inputs in list(contenders.values())[:2]
        ]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counted in track(
        [False] + [True] * args.rounds, 'rounds (the first is not counted)'
    ):
        for name, (function, model, inputs) in contenders.items():
            model.zero_grad()
            if device == 'cuda':
                torch.cuda.synchronize()
            start = time.perf_counter()
            function(model, inputs).backward()
            if device == 'cuda':
                torch.cuda.synchronize()
            if counted:
                seconds[name].append(time.perf_counter() - start)

    table = Table(
        title=f'batch {args.batch}, {args.rounds} rounds, {device}, '
        f'{torch.get_num_threads()} threads'
    )
    for column in ('', 's a step', 'textbook / it', 'it / bare backbone'):
        table.add_column(column, justify='right' if column else 'left')
    for name, times in seconds.items():
        gain = statistics.median(
            a / b for a, b in zip(seconds['textbook form'], times, strict=True)
        )
        cost = statistics.median(
            b / a for a, b in zip(seconds['bare backbone'], times, strict=True)
        )
        table.add_row(
            name,
            f'{statistics.median(times):.3f}',
            f'{gain:.2f}',
            f'{cost:.2f}',
        )
    console = Console()
    console.print(table)
    difference = abs(totals[0] - totals[1]) / abs(totals[0])
    console.print(f'totals differ by {difference:.1e} of their size')


if __name__ == '__main__':
    main()
