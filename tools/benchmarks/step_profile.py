# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The shares of a step's parts, by torch's profiler."""

import bisect
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from measuring import make_table
from rich.console import Console
from torch import nn
from torch.profiler import record_function

PREFIX = 'part: '
BACKWARD = 'autograd::engine::evaluate_function'


def parts_of(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return what runs in a step, by its name: an object and its method."""
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
    return {name: (part, 'forward') for name, part in parts.items()} | {
        'prototypes and losses': (model.head, 'loss'),
        'teacher and centers': (model, 'after_step'),
    }


@contextmanager
def named(owner: nn.Module, method: str, name: str) -> Iterator[None]:
    """Name what runs in a method."""
    plain = getattr(owner, method)

    def call(*args, **kwargs):
        with record_function(PREFIX + name):
            return plain(*args, **kwargs)

    setattr(owner, method, call)
    yield
    delattr(owner, method)


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
    for _ in range(2):
        step.backward()
        step.update()
    with ExitStack() as stack:
        for name, (owner, method) in parts_of(model).items():
            stack.enter_context(named(owner, method, name))
        result = stack.enter_context(torch.profiler.profile())
        step.backward()
        with record_function(PREFIX + 'clipping and optimizer'):
            step.update()
    forward, backward = attribute(result.events())
    # The teacher's update runs inside step.update().
    forward['clipping and optimizer'] -= forward['teacher and centers']
    total = forward.total() + backward.total()
    title = f'one step, {total:.3f} s in these parts'
    columns = ('share', 'forward (ms)', 'backward (ms)')
    table = make_table(title, 'part', *columns)
    for name, both in (forward + backward).most_common():
        milliseconds = (1000 * part[name] for part in (forward, backward))
        cells = (f'{value:.2f}' for value in milliseconds)
        table.add_row(name, f'{both / total:.1%}', *cells)
    Console(width=90).print(table)
