# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read the lines that a run logged, and how far it came by them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, float]
POSITIONS = ('iter', 'step', 'epoch')


def read_scalars(path: Path) -> tuple[list[Line], int]:
    """Read the numbers of a file with a JSON object on each line.

    A line may be torn: the run is writing it, was killed, or went on after
    its disk was full. Such a line is left out.

    Returns:
        tuple[list[Line], int]: The lines, and how many were damaged; an
        unfinished last line does not count. A missing file has no lines.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file():
        return [], 0
    *texts, rest = path.read_bytes().decode(errors='replace').split('\n')
    lines, damaged = [], 0
    for text in texts + [rest] * bool(rest):
        try:
            # A whole number that is larger than any float becomes infinite.
            content = json.loads(text, parse_int=float).items()
        except (ValueError, AttributeError, RecursionError):
            damaged += text is not rest
            continue
        line = {k: v for k, v in content if isinstance(v, float)}
        # No position is negative, infinite or NaN.
        if all(0 <= line.get(k, 0) < math.inf for k in POSITIONS):
            lines.append(line)
        else:
            damaged += text is not rest
    return lines, damaged


def stitch(starts: Sequence[Sequence[Line]]) -> list[Line]:
    """Join the lines of all starts of a run into one history.

    Where a start begins before the end of an earlier one, as after a kill,
    the lines that the earlier one logged from there on are dropped.

    Args:
        starts (Sequence[Sequence[Line]]): The lines of each start, oldest
            first. Lines of a training, and only those, have "iter".

    Returns:
        list[Line]: The lines, with their iteration as "at" (that of a
        validation is the last one logged before it) and the number of their
        start as "start".
    """
    kept: list[Line] = []
    for number, lines in enumerate(starts):
        first = next((v['iter'] for v in lines if 'iter' in v), math.inf)
        kept = [line for line in kept if line['at'] < first]
        at = kept[-1]['at'] if kept else 0.0
        for line in lines:
            at = line.get('iter', at)
            kept.append(line | {'at': at, 'start': number})
    return kept


def iterations_per_epoch(lines: Sequence[Line]) -> int | None:
    """Return the length of an epoch, None if the run does not count epochs.

    Epoch e ends at iteration e times that length, so none of its lines is
    beyond it; the last lines of a long run give the exact length.
    """
    counted = [line for line in lines if 'iter' in line and line.get('epoch')]
    return max(
        (math.ceil(line['iter'] / line['epoch']) for line in counted),
        default=None,
    )


def schedule(cfg: Mapping) -> tuple[Any, str]:
    """Return a training's length, 0 if unknown, in "epochs" or "iterations".

    A length that a damaged config has may be anything.
    """
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, Mapping):
        return 0, 'iterations'
    if 'max_epochs' in train_cfg:
        return train_cfg['max_epochs'], 'epochs'
    return train_cfg.get('max_iters', 0), 'iterations'


def last_validation(cfg: Mapping, lines: Sequence[Line]) -> tuple[Line, str]:
    """Find the validation at the end of a training.

    Returns:
        tuple[Line, str]: Its line and ""; or an empty line, and how far the
        training is.
    """
    total, unit = schedule(cfg)
    # Only lines of a training have an iteration.
    last = max((i for i, v in enumerate(lines) if 'iter' in v), default=-1)
    trained: Line = lines[last] if last >= 0 else {}
    validations = lines[last + 1 :]
    reached = trained.get('iter' if unit == 'iterations' else 'epoch', 0)
    if validations:
        logger = (cfg.get('default_hooks') or {}).get('logger') or {}
        by_epoch = logger.get('log_metric_by_epoch', True)
        if by_epoch == (unit == 'epochs'):
            reached = validations[-1].get('step', 0)
        elif unit == 'iterations':
            # The lines have no step: validations come at every multiple of
            # the interval, and at the end.
            interval = cfg['train_cfg'].get('val_interval', 1)
            first = -(-max(reached, 1) // interval)
            reached = min(interval * (first + len(validations) - 1), total)
        if reached == total:
            return validations[-1], ''
    problem = f'unfinished: {reached:.0f} of {total} {unit}'
    return {}, problem + (', not yet evaluated' if reached == total else '')
