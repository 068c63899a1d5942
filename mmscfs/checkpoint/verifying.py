# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .loading import check_pickle, is_archive, read_checkpoint

# What mmengine resumes from; without an optimiser it is no state of a run.
RUN_PARTS = ('meta', 'state_dict', 'optimizer', 'message_hub')


class NoRunError(ValueError):
    """A checkpoint is whole, but a run cannot be resumed from it."""


class SavedRun(NamedTuple):
    """What a checkpoint says of its run.

    Attributes:
        iteration (int): Iterations that were done.
        seed (int | None): The run's seed.
        cfg (str): Its config as text, "" if there is none.
    """

    iteration: int
    seed: int | None
    cfg: str


def read_saved_run(path: str | Path) -> SavedRun:
    """Return what the checkpoint of a run says of it.

    Its tensors are not read.

    Raises:
        NoRunError: It does not hold the state of a run.
        ValueError: It is damaged.
        OSError: The file cannot be read.
    """
    checkpoint = _read_without_tensors(path)
    missing = [part for part in RUN_PARTS if part not in checkpoint]
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if missing or 'iter' not in meta:
        what = ', '.join(missing) or "meta['iter']"
        raise NoRunError(
            f'checkpoint {str(path)!r} does not hold the state of a run '
            f'(no {what}): a run cannot be resumed from it; to start from '
            'its weights use --pretrained or load_from'
        )
    hub = checkpoint['message_hub']
    parts = {name: checkpoint[name] for name in RUN_PARTS}
    if isinstance(hub, Mapping):
        parts["message_hub['log_scalars']"] = hub.get('log_scalars')
        parts["message_hub['runtime_info']"] = hub.get('runtime_info', {})
    wrong = [
        name for name, part in parts.items() if not isinstance(part, Mapping)
    ]
    wrong += [
        f'meta[{name!r}]'
        for name in ('iter', 'epoch')
        if not is_count(meta.get(name))
    ]
    if wrong:
        raise ValueError(
            f'checkpoint {str(path)!r} is damaged, or no run of mmengine '
            f'saved it: its {", ".join(wrong)} cannot be used'
        )
    seed, cfg = meta.get('seed'), meta.get('cfg')
    return SavedRun(
        meta['iter'],
        seed if is_count(seed) else None,
        cfg if isinstance(cfg, str) else '',
    )


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0."""
    return type(value) is int and value >= 0


def _read_without_tensors(path: str | Path) -> Mapping[str, Any]:
    if is_archive(path):
        try:
            check_pickle(path)
            checkpoint = torch.load(
                path, map_location='cpu', mmap=True, weights_only=True
            )
        except Exception:
            # Whatever it is, reading all of it says it better.
            checkpoint = read_checkpoint(path)
        if isinstance(checkpoint, Mapping):
            return checkpoint
    return read_checkpoint(path)
