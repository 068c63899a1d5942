# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""All of resuming: what is saved and when, and how a run continues from it.

``files`` writes checkpoints that are whole or not there, ``checkpoint_hooks``
decides when, ``chooser`` picks the one to resume from, ``loop`` continues in
the middle of an epoch, and ``preemption`` saves a run that is asked to end.
"""

from .checkpoint_hooks import PlainCheckpointHook, SafeCheckpointHook
from .files import SafeLocalVisBackend
from .loop import ResumableEpochLoop
from .preemption import PreemptionHook, stand_apart

__all__ = [
    'PlainCheckpointHook',
    'PreemptionHook',
    'ResumableEpochLoop',
    'SafeCheckpointHook',
    'SafeLocalVisBackend',
    'stand_apart',
]
