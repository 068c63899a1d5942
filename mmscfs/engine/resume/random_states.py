# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The states of a process's random generators, in plain types.

Crops are keyed (see KeyedSampler) and do not need them; dropped paths, the
shuffled keys of MoCo and the transforms of other packages do.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.runner import set_random_seed


def get_random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators.

    Returns:
        dict[str, Any]: ``python``, ``numpy``, ``torch`` and, where there is
        an accelerator, ``device``; tensors on the CPU and plain types.
    """
    numpy_state = np.random.get_state(legacy=False)
    keys = numpy_state['state']['key'].astype(np.int64)
    states = dict(
        python=random.getstate(),
        numpy=dict(
            numpy_state,
            state=dict(numpy_state['state'], key=torch.from_numpy(keys)),
        ),
        torch=torch.get_rng_state(),
    )
    device = get_device()
    if device != 'cpu':
        states['device'] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set the generators to what :func:`get_random_states` returned.

    The accelerator's stays as it is if the states are those of a CPU.
    """
    version, words, gauss = states['python']
    random.setstate((version, tuple(words), gauss))
    numpy_state = states['numpy']
    keys = numpy_state['state']['key'].cpu().numpy().astype(np.uint32)
    np.random.set_state(
        dict(numpy_state, state=dict(numpy_state['state'], key=keys))
    )
    torch.set_rng_state(states['torch'].cpu())
    device = get_device()
    if device != 'cpu' and 'device' in states:
        torch.get_device_module(device).set_rng_state(states['device'].cpu())


def start_stream(seed: int, rank: int) -> None:
    """Give a process its own random stream; process 0 keeps the run's.

    mmengine seeds all processes alike, and each would drop the same paths.
    Its ``randomness.diff_rank_seed`` would change the order of the images,
    too.
    """
    if rank:
        mixed = np.random.SeedSequence([seed, rank]).generate_state(1)
        set_random_seed(int(mixed[0]))


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Restore the generators afterward, whatever draws from them here."""
    states = get_random_states()
    try:
        yield
    finally:
        set_random_states(states)
