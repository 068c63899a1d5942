# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The shares of a step's parts, by torch's profiler."""

import bisect
from collections import Counter
from contextlib import contextmanager

import torch
from measuring import make_table
from rich.console import Console
from torch import nn
from torch.profiler import ProfilerActivity, record_function

PREFIX = 'part: '
BACKWARD = 'autograd::engine::evaluate_function'


@contextmanager
def named_parts(model: nn.Module):
    """Name what runs in each network, in the search and in the head."""
    parts = {
        'backbone': model.backbone,
        'DINO projector': model.neck,
        "teacher's backbone": model.teacher.backbone,
        "teacher's DINO projector": model.teacher.neck,
    }
    if hasattr(model, 'search_neck'):
        parts['search projectors'] = model.search_neck
        parts["teacher's search projectors"] = model.teacher.search_neck
    if hasattr(model, 'search'):
        parts['search'] = model.search
    handles, running = [], {}
    for name, module in parts.items():

        def enter(*_, name=name):
            running[name] = record_function(PREFIX + name)
            running[name].__enter__()

        def leave(*_, name=name):
            running.pop(name).__exit__(None, None, None)

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    loss = model.head.loss

    def named_loss(*args, **kwargs):
        with record_function(PREFIX + 'prototypes and losses'):
            return loss(*args, **kwargs)

    model.head.loss = named_loss
    yield
    del model.head.loss
    for handle in handles:
        handle.remove()


def seconds(event) -> float:
    """Return what an event took: on the GPU where it used one."""
    if torch.cuda.is_available():
        return event.device_time_total / 1e6
    return event.time_range.elapsed_us() / 1e6


def attribute(events) -> tuple[Counter, Counter]:
    """Return the seconds of each part, forward and backward.

    A backward function carries the number of the forward call that made it.
    """
    spans = sorted(
        (e.time_range.start, e.time_range.end, e.name[len(PREFIX) :])
        for e in events
        if e.name.startswith(PREFIX)
        and 'cuda' not in str(e.device_type).lower()
    )
    starts = [span[0] for span in spans]
    forward, backward, owner = Counter(), Counter(), {}
    for event in events:
        if event.name.startswith(PREFIX):
            forward[event.name[len(PREFIX) :]] += seconds(event)
        elif event.sequence_nr >= 0 and 'autograd::' not in event.name:
            place = bisect.bisect(starts, event.time_range.start) - 1
            if place >= 0 and event.time_range.start < spans[place][1]:
                owner.setdefault(event.sequence_nr, spans[place][2])
    for event in events:
        if event.name.startswith(BACKWARD):
            part = owner.get(event.sequence_nr, 'between the parts')
            backward[part] += seconds(event)
    return forward, backward


def profile(step, model: nn.Module) -> None:
    """Print the shares of a step of SCFS or DINO."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):
        step.backward()
        step.update()
    update = model.after_step

    def named_update(*args):
        with record_function(PREFIX + 'teacher and centers'):
            update(*args)

    model.after_step = named_update
    with (
        named_parts(model),
        torch.profiler.profile(activities=activities) as result,
    ):
        step.backward()
        with record_function(PREFIX + 'clipping and optimizer'):
            step.update()
    del model.after_step
    forward, backward = attribute(result.events())
    # The teacher's update runs inside step.update().
    forward['clipping and optimizer'] -= forward['teacher and centers']
    total = forward.total() + backward.total()
    table = make_table(
        f'one step, {total:.3f} s in these parts',
        'part',
        'share',
        'forward (ms)',
        'backward (ms)',
    )
    for name in sorted(
        forward.keys() | backward.keys(),
        key=lambda name: -forward[name] - backward[name],
    ):
        table.add_row(
            name,
            f'{(forward[name] + backward[name]) / total:.1%}',
            f'{1000 * forward[name]:.2f}',
            f'{1000 * backward[name]:.2f}',
        )
    Console(width=90).print(table)
