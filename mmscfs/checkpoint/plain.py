# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Keep checkpoints to tensors and plain types.

mmengine saves the logged values as ``HistoryBuffer`` objects, which pickle
references to their own methods: torch.load refuses them unless ``getattr`` is
allowed, and with it much of what makes pickles unsafe. Stored as tensors
instead, a checkpoint loads with ``weights_only=True`` anywhere, with no class
allowed and without mmscfs.
"""

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# Tensors and plain types already, and the large part of the file.
TENSOR_PARTS = ('state_dict', 'optimizer')


def to_plain(value: Any) -> Any:
    """Convert a value to tensors and plain types only.

    A ``HistoryBuffer`` of n values becomes ``dict(values=(n,), counts=(n,),
    max_length=int)``; NumPy's numbers become Python's, its arrays tensors.
    """
    if isinstance(value, HistoryBuffer):
        values, counts = value.data
        return dict(
            values=torch.tensor(values, dtype=torch.float64),
            counts=torch.tensor(counts, dtype=torch.float64),
            max_length=value.max_length,
        )
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return (
            value.tolist()
            if value.dtype.kind in 'OSU'
            else torch.tensor(value)
        )
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(to_plain, value))
    return value


def restore_histories(message_hub: dict) -> dict:
    """Return a message hub's plain state with ``HistoryBuffer`` objects."""
    histories = {
        key: HistoryBuffer(
            history['values'].tolist(),
            history['counts'].tolist(),
            history['max_length'],
        )
        if isinstance(history, dict)
        else history
        for key, history in message_hub['log_scalars'].items()
    }
    return dict(message_hub, log_scalars=histories)


def to_count(value: Any) -> int | None:
    """Return a whole number from 0, text in a safetensors file; else None."""
    is_number = isinstance(value, (int, str)) and str(value).isdecimal()
    return int(value) if is_number and len(str(value)) < 20 else None
