# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import remove_unfinished

from ..saving import ATOMIC, is_local, save_run, window_is_closed


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, whose checkpoints survive kills and full disks.

    - A checkpoint is whole or not there, and holds what it takes to resume
      exactly: the position in the epoch and the states of the random
      generators of every process, beside mmengine's.
    - One that is outdated is removed after the new one is in place, so for
      a moment there are ``max_keep_ckpts + 1``.
    - A save that fails is an error in the log, and the run goes on: what it
      learnt is in memory alone now, and the next save may find room. A run
      that ends without its last checkpoint fails.
    - A save by iterations that is due while gradients accumulate takes place
      at the next step.

    Args:
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: After the run, if its last checkpoint could not be saved.
    """

    backend_args: dict | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._due = False
        self._error: OSError | None = None

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed process left unfinished."""
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
                        f'Removed {path}: a process ended as it wrote it.'
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

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save if it is due, by iterations."""
        if self.by_epoch:
            return
        if self.every_n_train_iters(
            runner, self.interval, self.save_begin
        ) or (self.save_last and self.is_last_train_iter(runner)):
            self._due = True
        if self._due and window_is_closed(runner):
            self._due = False
            runner.logger.info(
                f'Saving checkpoint at {runner.iter + 1} iterations'
            )
            self._save_checkpoint(runner)

    def after_train(self, runner: Runner) -> None:
        """Let no run end as if it were saved.

        Raises:
            OSError: The last checkpoint could not be saved.
        """
        if self._error is not None:
            raise self._error
        super().after_train(runner)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        info = runner.message_hub.runtime_info
        before = {
            name: info[name]
            for name in ('last_ckpt', 'keep_ckpt_ids')
            if name in info
        }
        limited = self.max_keep_ckpts > 0
        kept = [*self.keep_ckpt_ids] if limited else []
        if limited and step not in kept[-1:]:
            kept.append(step)
            # One more than is kept: a run that resumes from this checkpoint
            # removes the outdated one if a kill came before it was.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        filename = self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', path)
        try:
            save_run(
                runner,
                self.out_dir,
                filename,
                file_client_args=self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        except OSError as error:
            info.pop('last_ckpt')
            info.pop('keep_ckpt_ids', None)
            info.update(before)
            self._report(runner, error)
            return
        self._error = None
        self.last_ckpt = path
        if limited:
            self._remove_outdated(runner, kept)

    def _remove_outdated(self, runner: Runner, kept: list[int]) -> None:
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.extend(kept[len(self.keep_ckpt_ids) :])
        runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids])
        if not is_main_process():
            return
        for step in outdated:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(step)
            )
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            self._report(runner, error)

    def _report(self, runner: Runner, error: OSError) -> None:
        """Say what is lost, what is not, and what to do."""
        self._error = error
        kept = self.last_ckpt or runner.message_hub.runtime_info.get(
            'last_ckpt'
        )
        kept = f'{Path(kept).name} is kept' if kept else 'there is none yet'
        runner.logger.error(
            f'NO CHECKPOINT WAS SAVED: {error}. Of those before, {kept}. '
            'Training goes on, and saves again at the next interval: free '
            'room until then, lower default_hooks.checkpoint.max_keep_ckpts '
            'or set its out_dir to another disk.'
        )
