# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""mmengine's training loops, which go on in the middle of an epoch."""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, get_world_size
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.utils import calc_dynamic_intervals
from mmpretrain.registry import LOOPS
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ..random_states import (
    get_random_states,
    kept_random_states,
    set_random_states,
)
from ..runner_access import check_not_empty
from ..saving import POSITION, RANDOM_STATES


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop of epochs, which resumes exactly at any iteration.

    Batches that were trained on are passed over, and not loaded. What the
    run draws from random generators goes on where it was; making the
    loader's iterators and validating draw nothing from them. Exact for any
    number of workers where a sample's random values depend on its key alone
    (see ``KeyedSampler``), and without workers for all transforms.

    Raises:
        ValueError: There are fewer images than a batch takes.
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
        self._between: dict[str, Any] | None = None
        self._begun = False

    @property
    def random_states(self) -> dict[str, Any]:
        """The generators' states for the next iteration."""
        return self._between or get_random_states()

    def run_epoch(self) -> None:
        """Iterate an epoch, or what is left of it."""
        states = self.random_states
        if not self._begun:
            self._begun = True
            check_agreement(self._iter)
            if self._iter:
                self.position = saved_position(self.runner, self.dataloader)
                states = saved_states(self.runner) or states

        begin_epoch(self.runner, again=self.position > 0)
        self.runner.model.train()
        batches = enumerate(
            load_from(self.dataloader, self.position), self.position
        )
        set_random_states(states)
        self._between = None
        for index, batch in batches:
            self.position = index + 1
            self.run_iter(index, batch)
        self._between = get_random_states()
        self.position = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's loop of iterations, which resumes exactly.

    mmengine's loads all batches again that were trained on. For what is
    exact see :class:`ResumableEpochLoop`; the arguments are mmengine's.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        # Not that of mmengine's loop: it would begin to load at once.
        BaseLoop.__init__(self, runner, dataloader)
        if int(max_iters) != max_iters:
            raise ValueError(f'train_cfg.max_iters={max_iters} must be whole')
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False  # set by mmengine's EarlyStoppingHook
        # Batches of this pass over the images that were trained on.
        self.position = 0
        # The generators' states for the next iteration, during a validation.
        self.random_states: dict[str, Any] | None = None
        runner.visualizer.dataset_meta = getattr(
            self.dataloader.dataset, 'metainfo', None
        )
        self.dynamic_milestones, self.dynamic_intervals = (
            calc_dynamic_intervals(val_interval, dynamic_intervals)
        )

    def run(self) -> nn.Module:
        """Train to the last iteration; return the model."""
        runner = self.runner
        states = get_random_states()
        check_agreement(self._iter)
        if self._iter:
            saved_position(runner, self.dataloader)
            states = saved_states(runner) or states
        runner.call_hook('before_train')
        begin_epoch(runner, again=self._iter > 0)
        batches = self._batches()
        set_random_states(states)
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            if not self._is_endless:
                self.position = (self._iter + 1) % len(self.dataloader)
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if (
                runner.val_loop is not None
                and self._iter >= self.val_begin
                and (
                    self._iter % self.val_interval == 0
                    or self._iter == self._max_iters
                )
            ):
                # A new best one has the run saved amid the validation.
                self.random_states = get_random_states()
                with kept_random_states():
                    runner.val_loop.run()
                self.random_states = None
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    @property
    def _is_endless(self) -> bool:
        sampler = self.dataloader.batch_sampler.sampler
        return isinstance(sampler, InfiniteSampler)

    def _batches(self) -> Iterator[Any]:
        loader = self.dataloader
        sampler = loader.batch_sampler.sampler
        epoch, position = divmod(self._iter, len(loader))
        if self._is_endless:
            epoch, position = 0, self._iter
        while True:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
            with kept_random_states():
                batches = iter(load_from(loader, position))
            yield from batches
            epoch, position = epoch + 1, 0


class Rest(Sampler):
    """What is left of a sampler's batches.

    Args:
        batches (BatchSampler): Yields the indices of each batch.
        start (int): Batches to pass over.
    """

    def __init__(self, batches: BatchSampler, start: int) -> None:
        self.batches = batches
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), self.start, None)

    def __len__(self) -> int:
        return len(self.batches) - self.start


def load_from(loader: DataLoader, start: int) -> DataLoader:
    """Return a loader of the same batches without the first ``start``."""
    if not start:
        return loader
    return DataLoader(
        loader.dataset,
        batch_sampler=Rest(cast(BatchSampler, loader.batch_sampler), start),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def begin_epoch(runner: Runner, again: bool) -> None:
    """Call the hooks before an epoch.

    Args:
        runner (Runner): The runner.
        again (bool): Whether it began in a run before: what the hooks log
            is in the histories already.
    """
    histories = runner.message_hub.log_scalars
    before = copy.deepcopy(histories) if again else None
    runner.call_hook('before_train_epoch')
    if before is not None:
        histories.clear()
        histories.update(before)


def saved_position(runner: Runner, loader: DataLoader) -> int:
    """Return how many batches of the epoch the checkpoint's run had done.

    Raises:
        ValueError: It was saved within an epoch of another length.
    """
    position, length = runner.message_hub.runtime_info.get(POSITION, (0, 0))
    if position == length:  # saved at its end
        return len(loader) if position else 0
    if position and length != len(loader):
        raise ValueError(
            f'the checkpoint was saved after batch {position} of {length} of '
            f'an epoch, but train_dataloader has {len(loader)} batches now: '
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
            f'The checkpoint is of {len(states)} processes and this run has '
            f'{get_world_size()}: what it draws at random while it trains '
            '(dropped paths, shuffled keys) will differ from the run before.'
        )
        return None
    return states[runner.rank]


def check_agreement(iteration: int) -> None:
    """Check that all processes resumed from the same checkpoint.

    Raises:
        RuntimeError: They did not.
    """
    iterations = all_gather_object(iteration)
    if len(set(iterations)) > 1:
        raise RuntimeError(
            f'the {get_world_size()} processes resumed at the iterations '
            f'{iterations}: they see different files in the work directory; '
            'wait until all nodes see the same, or name the checkpoint'
        )
