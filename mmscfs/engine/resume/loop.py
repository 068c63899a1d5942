# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""mmengine's training loops: random streams, and epochs that resume."""

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import LOOPS
from torch.utils.data import DataLoader

from mmscfs.datasets.samplers import KeyedSampler

from ..runner_access import check_not_empty
from .random_states import (
    get_random_states,
    set_random_states,
    start_stream,
)

# What the message hub keeps of a run, beside mmengine's own.
RANDOM_STATES = 'random_states'
POSITION = 'epoch_position'


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop of epochs, which resumes exactly at any iteration.

    Each process has its own random stream, which continues where it was;
    creating the loader's iterators and validating draw nothing from it.
    ``KeyedSampler`` skips the batches that were trained on. With another
    sampler they are loaded once more and dropped. Exact for any number of
    workers where the random values of a sample depend on its key alone, and
    without workers for all transforms.

    Raises:
        ValueError: The data set has fewer images than a batch.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        # Now: mmengine's schedules would fail on epochs of no iteration.
        check_not_empty(self.dataloader)
        # Batches of this epoch that were trained on.
        self.position = 0
        # The generators' states between two epochs.
        self._between: dict[str, Any] | None = None
        self._begun = False

    def note_position(self) -> None:
        """Note for a checkpoint where the run is. Every process must call."""
        states = self._between or get_random_states()
        hub = self.runner.message_hub
        hub.update_info(RANDOM_STATES, all_gather_object(states))
        hub.update_info(POSITION, (self.position, len(self.dataloader)))

    def run(self) -> Any:
        """Train; refuse to resume within an epoch of another length first."""
        if self._iter:
            batches = len(self.dataloader)
            self.position = saved_position(self.runner, batches)
        return super().run()

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        if not self._begun:
            start_stream(self.runner.seed, self.runner.rank)
        states = self._between or get_random_states()
        if self._iter and not self._begun:
            states = saved_states(self.runner) or states
        self._begun = True
        self._call_before_epoch()
        self.runner.model.train()
        batches = self._load_rest()
        set_random_states(states)
        self._between = None
        for index, batch in enumerate(batches, self.position):
            self.position = index + 1
            self.run_iter(index, batch)
        self._between = get_random_states()
        self.position = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _call_before_epoch(self) -> None:
        """Call the hooks; an epoch that had begun keeps what they logged."""
        histories = self.runner.message_hub.log_scalars
        before = copy.deepcopy(histories) if self.position else None
        self.runner.call_hook('before_train_epoch')
        if before is not None:
            histories.clear()
            histories.update(before)

    def _load_rest(self) -> Iterator[Any]:
        """Load the batches of this epoch that were not trained on."""
        loader, seen = self.dataloader, self.position
        if isinstance(loader.sampler, KeyedSampler):
            loader.sampler.start, seen = seen * loader.batch_size, 0
        batches = iter(loader)
        for _ in range(seen):
            next(batches)
        return batches


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's loop of iterations; each process has its own random stream.

    A run that resumes loads once more what it was trained on, and drops it.
    Its streams start over.
    """

    def run(self) -> Any:
        """Train."""
        start_stream(self.runner.seed, self.runner.rank)
        return super().run()


def saved_position(runner: Runner, batches: int) -> int:
    """Return how many batches of the epoch the checkpoint's run had done.

    An epoch has ``batches`` now.

    Raises:
        ValueError: It was saved within an epoch of another length.
    """
    info = runner.message_hub.runtime_info
    position, length = info.get(POSITION, (0, 0))
    if position in (0, length):  # saved after an epoch
        if length not in (0, batches):
            planned = info.get('max_iters', runner.max_epochs * length)
            left = runner.max_epochs - runner.epoch - bool(position)
            end = runner.iter + left * batches
            runner.logger.warning(
                f'An epoch has {batches} steps now; it had {length} when the '
                f'checkpoint was saved. The schedules are made for {planned} '
                f'steps in all, and the run now ends after {end}. To keep the '
                'planned schedule, resume with the same data, batch size and '
                'number of processes'
            )
        return batches if position else 0
    if length != batches:
        raise ValueError(
            f'the checkpoint was saved after batch {position} of {length} of '
            f'an epoch, but train_dataloader has {batches} batches now: '
            'resume with the same data, batch size and number of processes, '
            'or from a checkpoint that was saved after an epoch'
        )
    return position


def saved_states(runner: Runner) -> dict[str, Any] | None:
    """Return this process's random states in the checkpoint, if any.

    None with a warning where the run had another number of processes.
    """
    states = runner.message_hub.runtime_info.get(RANDOM_STATES)
    if states is None:  # a checkpoint of mmengine alone
        return None
    if len(states) != get_world_size():
        runner.logger.warning(
            f'Saved with {len(states)} processes, running with '
            f'{get_world_size()}: random states are not restored. What is '
            'drawn while training (dropped paths, shuffled keys) will differ '
            'from the run before.'
        )
        return None
    return states[runner.rank]


def window_is_closed(runner: Runner) -> bool:
    """Whether no accumulated gradients wait for the next step.

    They are not saved: a run is saved between two windows.
    """
    wrapper = runner.optim_wrapper
    wrappers = (
        wrapper.values()
        if isinstance(wrapper, OptimWrapperDict)
        else [wrapper]
    )
    return all(wrapper.should_update() for wrapper in wrappers)
