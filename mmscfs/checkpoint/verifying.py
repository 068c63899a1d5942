# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .loading import is_archive, read_checkpoint

# What mmengine resumes from; without an optimiser it is no state of a run.
RUN_PARTS = ('meta', 'state_dict', 'optimizer', 'message_hub')


class NoRunError(ValueError):
    """A checkpoint is whole, but a run cannot be resumed from it."""


def read_progress(path: str | Path) -> int:
    """Return the iteration that a checkpoint of a run was saved at.

    Its tensors are not read.

    Raises:
        NoRunError: It does not hold the state of a run.
        ValueError: It is damaged.
        OSError: The file cannot be read.
    """
    checkpoint = _read_without_tensors(path)
    missing = [part for part in RUN_PARTS if part not in checkpoint]
    meta = checkpoint.get('meta')
    done = meta.get('iter') if isinstance(meta, Mapping) else None
    if missing or not isinstance(done, int):
        what = ', '.join(missing) or "meta['iter']"
        raise NoRunError(
            f'checkpoint {str(path)!r} does not hold the state of a run '
            f'(no {what}): a run cannot be resumed from it; to start from '
            'its weights use --pretrained or load_from'
        )
    return done


def _read_without_tensors(path: str | Path) -> Mapping[str, Any]:
    if is_archive(path):
        try:
            checkpoint = torch.load(
                path, map_location='cpu', mmap=True, weights_only=True
            )
        except Exception:
            # Whatever it is, reading all of it says it better.
            checkpoint = read_checkpoint(path)
        if isinstance(checkpoint, Mapping):
            return checkpoint
    return read_checkpoint(path)
