# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import (
    broadcast_object_list,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import (
    TENSOR_PARTS,
    drop_code,
    remove_unfinished,
    restore_histories,
    to_plain,
)

from .files import ATOMIC, AtomicBackend, is_local
from .loop import ResumableEpochLoop, window_is_closed

# What mmengine's hook knows of its files.
KNOWN = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')

FIGURES = 'representation/'  # how the names of RepresentationHook's begin


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, whose checkpoints survive kills and full disks.

    - A checkpoint is whole or not there. It holds what an exact resume needs:
      beside mmengine's parts the position in the epoch and the states of the
      random generators of every process.
    - An outdated checkpoint, or best one, is removed after the new one is in
      place: for a moment there are ``max_keep_ckpts + 1``.
    - A save that fails is an error in the log, and the run continues: what it
      has learned is in memory alone now, and the next save may find room. A
      run whose last save failed ends with the error.
    - All processes learn how a save ended, and continue alike.
    - A save by iterations that is due while gradients accumulate takes place
      after the next step.
    - ``save_best`` may name figures of ``RepresentationHook`` instead of
      scores of a validation.

    Args:
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: After the run, if its last save failed.
        ValueError: ``save_best`` names figures that no hook measures.

    Example:
        >>> # in a config: every 10 epochs, the newest three
        >>> default_hooks = dict(checkpoint=dict(
        ...     type='SafeCheckpointHook', interval=10, max_keep_ckpts=3))
    """

    backend_args: dict | None
    last_ckpt: str | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._due = False
        self._error: OSError | None = None

    def before_train(self, runner: Runner) -> None:
        """Check ``save_best``, and remove what a killed process left."""
        if self.wants_figures and not any(
            type(hook).__name__ == 'RepresentationHook'
            for hook in runner.hooks
        ):
            raise ValueError(
                f'default_hooks.checkpoint.save_best={self.save_best!r} names '
                'what RepresentationHook measures: add it to default_hooks, '
                "e.g. representation=dict(type='RepresentationHook')"
            )
        out_dir = str(self.out_dir or runner.work_dir)
        local = self.file_client_args is None and is_local(out_dir)
        if local and self.backend_args is None:
            self.backend_args = dict(backend=ATOMIC)
        super().before_train(runner)
        if is_main_process():
            folders = {runner.work_dir, *([self.out_dir] if local else [])}
            for folder in sorted(map(str, folders)):
                for path in remove_unfinished(folder):
                    runner.logger.warning(
                        f'Removed {path}: a process ended while writing it.'
                    )
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        batches = len(runner.train_dataloader)
        if self.by_epoch and batches % counts:
            runner.logger.warning(
                f'optim_wrapper.accumulative_counts={counts} does not divide '
                f"the {batches} batches of an epoch: an epoch's checkpoint "
                'lacks the gradients that wait for the next step, and does '
                'not resume exactly. Save by iterations with '
                'default_hooks.checkpoint.by_epoch=False.'
            )

    @property
    def wants_figures(self) -> bool:
        """Whether ``save_best`` names figures of RepresentationHook."""
        return bool(self.save_best) and any(
            name.startswith(FIGURES) for name in self.key_indicators
        )

    def every_n_train_iters(
        self, runner: Runner, n: int, start: int = 0
    ) -> bool:
        """Whether a save is due, and no gradients wait for the next step."""
        self._due = self._due or super().every_n_train_iters(runner, n, start)
        return self._due and window_is_closed(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save if it is due, by iterations."""
        if not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval, self.save_begin)
            or (self.save_last and self.is_last_train_iter(runner))
        ):
            with self._undone_if_it_fails(runner):
                super().after_train_iter(
                    runner, batch_idx, data_batch, outputs
                )
            self._due = False

    def after_train_epoch(self, runner: Runner) -> None:
        """Save if it is due, by epochs."""
        if self.by_epoch:
            with self._undone_if_it_fails(runner):
                super().after_train_epoch(runner)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float]
    ) -> None:
        """Save the best one."""
        if self.wants_figures and not {*self.key_indicators} & metrics.keys():
            return  # scores of a validation
        last = self.last_ckpt
        if self.save_best:
            with self._undone_if_it_fails(runner):
                if not self.by_epoch and not window_is_closed(runner):
                    # Else mmengine would save the run here once more, without
                    # the gradients that wait.
                    self.last_ckpt = None
                super().after_val_epoch(runner, metrics)
            self.last_ckpt = self.last_ckpt or last

    def after_figures(
        self, runner: Runner, figures: dict[str, float], has_begun: bool
    ) -> None:
        """Save the best one by figures of RepresentationHook, if wanted.

        For hooks that run after an epoch, or after an iteration of a run
        without epochs. The first weights do not count.

        Raises:
            ValueError: ``save_best`` names a figure that was not measured.
        """
        if not self.wants_figures:
            return
        if unknown := {*self.key_indicators} - figures.keys():
            raise ValueError(
                f'default_hooks.checkpoint.save_best={self.save_best!r}: '
                f'{", ".join(sorted(unknown))} is not measured; choose from '
                f'{", ".join(figures)}'
            )
        if has_begun:
            # mmengine counts an epoch after these hooks, before validation.
            loop = runner.train_loop
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            counter = '_epoch' if by_epoch else '_iter'
            vars(loop)[counter] += 1
            try:
                self.after_val_epoch(runner, figures)
            finally:
                vars(loop)[counter] -= 1

    def after_train(self, runner: Runner) -> None:
        """Let no run end as if it were saved.

        Raises:
            OSError: The last save failed.
        """
        if self._error is not None:
            raise self._error
        super().after_train(runner)

    @contextmanager
    def _undone_if_it_fails(self, runner: Runner) -> Iterator[None]:
        """Save within; if it fails, all processes go on as if it had not been.

        Nothing within may wait for other processes: only the main one saves,
        and leaves early if it fails.
        """
        if isinstance(runner.train_loop, ResumableEpochLoop):
            runner.train_loop.note_position()
        info, last = runner.message_hub.runtime_info, self.last_ckpt
        known = {k: copy.copy(v) for k, v in vars(self).items() if k in KNOWN}
        before = dict(info)
        error = None
        try:
            yield
        except OSError as caught:
            error = caught
        # In words, as not every error can be sent.
        words = [error and str(error)]
        broadcast_object_list(words)
        if words[0] is None:
            if self.last_ckpt not in (None, last):
                self._error = None
            remove_outdated(runner)
            return
        self._error = error or OSError(words[0])
        AtomicBackend.outdated.clear()
        info.clear()
        info.update(before)
        for name, value in known.items():
            setattr(self, name, value)
        if error is not None:  # on the main process
            newest = info.get('last_ckpt') or 'none yet'
            runner.logger.error(
                f'NO CHECKPOINT WAS SAVED: {error}. The files from before are '
                f'kept (newest: {newest}). Training continues, and saves '
                'again at the next interval: free disk space before then, '
                'lower default_hooks.checkpoint.max_keep_ckpts or set its '
                'out_dir to another disk.'
            )


def remove_outdated(runner: Runner) -> None:
    """Remove the outdated files, or warn that one stays."""
    for path in sorted(AtomicBackend.outdated):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            runner.logger.warning(
                f'{path} is outdated and could not be removed: {error}. '
                'Remove it yourself.'
            )
    AtomicBackend.outdated.clear()


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save checkpoints that load with ``weights_only=True``, and resume them.

    See :func:`to_plain` for the reason.

    Example:
        >>> default_hooks = dict(
        ...     plain_checkpoint=dict(type='PlainCheckpointHook'))
    """

    # After the hooks that add to a checkpoint.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Convert everything to tensors and plain types.

        The number of processes is noted too: with the config's batch size it
        tells how many images a step had.
        """
        checkpoint['meta']['world_size'] = get_world_size()
        for key, value in checkpoint.items():
            if key not in TENSOR_PARTS:
                checkpoint[key] = to_plain(value)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the log's histories before the runner resumes its log.

        What came from an address, past our loader, loses its code here.
        """
        drop_code(checkpoint)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = restore_histories(
                checkpoint['message_hub']
            )
