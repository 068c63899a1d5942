# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator

from mmengine.dataset import DefaultSampler
from mmpretrain.registry import DATA_SAMPLERS


class SampleKey(int):
    """A data set index that knows its run's seed and its epoch.

    It is an index to the data set, and reaches the transforms of any worker
    process as ``results['sample_idx']``.

    Attributes:
        key (tuple[int, int, int]): (seed, epoch, index), all that the random
            values of a sample may depend on.
    """

    key: tuple[int, int, int]

    def __new__(cls, index: int, seed: int = 0, epoch: int = 0) -> 'SampleKey':
        self = super().__new__(cls, index)
        self.key = (seed, epoch, int(index))
        return self

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        # The key goes with the index to worker processes.
        seed, epoch, index = self.key
        return type(self), (index, seed, epoch)


@DATA_SAMPLERS.register_module()
class KeyedSampler(DefaultSampler):
    """mmengine's sampler, its indices keyed for reproducible augmentation.

    Workers' own random states start alike in every epoch, or after every
    resume. A key makes a sample's random values depend on the seed, the
    epoch and the image alone: any number of workers, a resumed run and a run
    that never stopped give the same views.

    Args:
        dataset (Sized): The data set.
        shuffle (bool): Defaults to True.
        seed (int, optional): The run's seed; the runner gives it. Defaults
            to None: one drawn for all processes.
        round_up (bool): Defaults to True.
    """

    def __iter__(self) -> Iterator[SampleKey]:
        for index in super().__iter__():
            yield SampleKey(index, self.seed, self.epoch)
