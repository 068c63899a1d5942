# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Put the logged lines of a run's starts into one history."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Line = dict[str, float]


def read_scalars(path: Path) -> tuple[list[Line], int]:
    """Read the numbers of a file of a json object a line.

    A line may be torn: by a run that is writing it, that was killed, or whose
    disk was full and which went on. It is left out.

    Returns:
        tuple[list[Line], int]: The lines, and how many were damaged; an
        unfinished last one is not counted.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_file():
        return [], 0
    *texts, rest = path.read_bytes().decode(errors='replace').split('\n')
    lines, damaged = [], 0
    for text in texts + [rest] * bool(rest):
        try:
            content = json.loads(text)
            lines.append(_numbers(content))
        except (ValueError, TypeError, RecursionError):
            damaged += text is not rest
    return lines, damaged


def _numbers(content: Mapping) -> Line:
    """Return the entries that are numbers.

    Raises:
        TypeError: The content is no object.
        ValueError: Its position is none.
    """
    if not isinstance(content, dict):
        raise TypeError('no object')
    line = {}
    for name, value in content.items():
        if type(value) in (int, float):
            # Of whole numbers, json has some that are beyond a float.
            line[name] = float(value) if abs(value) < 1e300 else math.inf
            if value != value:
                line[name] = math.nan
    for name in ('iter', 'step', 'epoch'):
        if not 0 <= line.get(name, 0) < math.inf:
            raise ValueError(f'{name} is no position')
    return line


def stitch(sessions: Sequence[Sequence[Line]]) -> list[Line]:
    """Join the lines of all starts of a run; the later start counts.

    Where a start begins before the end of an earlier one, as after a kill,
    what the earlier one logged from there on is dropped.

    Args:
        sessions (Sequence[Sequence[Line]]): The lines of each start, oldest
            first. Those of a training, and only such, have "iter".

    Returns:
        list[Line]: The lines with their iteration as "at": that of a
        validation is the last one logged before it; and as "start" which
        session they are of.
    """
    kept: list[Line] = []
    for number, lines in enumerate(sessions):
        first = next((v['iter'] for v in lines if 'iter' in v), math.inf)
        kept = [line for line in kept if line['at'] < first]
        at = kept[-1]['at'] if kept else 0.0
        for line in lines:
            at = line.get('iter', at)
            kept.append(line | {'at': at, 'start': number})
    return kept


def iterations_per_epoch(lines: Sequence[Line]) -> int | None:
    """Return how long an epoch is, None if the run counts none.

    An epoch e ends at e times the wanted number, so no line of it is beyond;
    the last lines of the longest runs tell it exactly.
    """
    counted = [line for line in lines if 'iter' in line and line.get('epoch')]
    return max(
        (math.ceil(line['iter'] / line['epoch']) for line in counted),
        default=None,
    )
