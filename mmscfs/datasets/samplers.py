# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Indices of a data set, with what random values may depend on."""

from collections.abc import Iterator
from itertools import islice

from mmengine.dataset import DefaultSampler
from mmpretrain.registry import DATA_SAMPLERS


class SampleKey(int):
    """A data set index that knows its run's seed and its epoch.

    It is an index to the data set, and reaches the transforms of any worker
    process as ``results['sample_idx']``, also from within mmengine's
    ConcatDataset and RepeatDataset.

    Attributes:
        key (tuple[int, int, int]): (seed, epoch, index), all that the random
            values of a sample may depend on.
    """

    key: tuple[int, int, int]

    def __new__(cls, index: int, seed: int = 0, epoch: int = 0) -> 'SampleKey':
        self = super().__new__(cls, index)
        self.key = (seed, epoch, int(index))
        return self

    def at(self, index: int) -> 'SampleKey':
        """Return another index with this key."""
        moved = SampleKey(index)
        moved.key = self.key
        return moved

    # How ConcatDataset and RepeatDataset find the place in their parts.
    def __sub__(self, other: int) -> 'SampleKey':
        return self.at(int(self) - other)

    def __mod__(self, other: int) -> 'SampleKey':
        return self.at(int(self) % other)

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        # The key goes with the index to worker processes.
        seed, epoch, index = self.key
        return type(self), (index, seed, epoch)


@DATA_SAMPLERS.register_module()
class KeyedSampler(DefaultSampler):
    """mmengine's sampler, its indices keyed for reproducible augmentation.

    Workers start with the same random states in every epoch, or after every
    resume. A key makes a sample's random values depend on the seed, the
    epoch and the image alone: any number of workers, a resumed run and a run
    that never stopped give the same views.

    Args:
        dataset (Sized): The data set.
        shuffle (bool): Defaults to True.
        seed (int, optional): The run's seed, which the runner passes.
            Defaults to None: one drawn for all processes.
        round_up (bool): Defaults to True.

    Attributes:
        start (int): Indices to skip, which the epoch has seen before it was
            resumed. Set by ``ResumableEpochLoop`` in every epoch.

    Example:
        >>> sampler = KeyedSampler(range(3), shuffle=False, seed=7)
        >>> sampler.start = 1
        >>> [(int(index), index.key) for index in sampler]
        [(1, (7, 0, 1)), (2, (7, 0, 2))]
    """

    start = 0

    def __iter__(self) -> Iterator[SampleKey]:
        for index in islice(super().__iter__(), self.start, None):
            yield SampleKey(index, self.seed, self.epoch)
