# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import remove_unfinished

from ..saving import ATOMIC, is_local, save_run, window_is_closed

REMEDY = (
    'free room until then, lower default_hooks.checkpoint.max_keep_ckpts or '
    'set its out_dir to another disk'
)


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
      that ends without its last checkpoint fails, and so does one whose best
      (``save_best``) is lost: the best from before is kept and stays the one
      to beat, and a run that reaches the lost score again has made it good.
    - All processes learn how a save ended, and go on alike.
    - A save by iterations that is due while gradients accumulate takes place
      at the next step.

    Args:
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: After the run, if its last checkpoint could not be saved, or
            its best.
    """

    backend_args: dict | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._due = False
        self._error: OSError | None = None
        # By metric: the best score that no file has, and why.
        self._lost: dict[str, tuple[float, OSError]] = {}

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
            OSError: The last checkpoint could not be saved, or the best.
        """
        if self._error is not None:
            raise self._error
        for metric, (score, error) in self._lost.items():
            raise OSError(
                f'the best checkpoint is lost ({metric}={score:.4f}), and '
                f'none since is as good: {error}. All else is saved. To have '
                'it, free room or set default_hooks.checkpoint.out_dir to '
                'another disk, and resume from a checkpoint before it'
            ) from error
        super().after_train(runner)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        limited = self.max_keep_ckpts > 0
        kept = [*self.keep_ckpt_ids] if limited else []
        filename = self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, filename)
        entries: dict[str, Any] = dict(last_ckpt=path)
        if limited and step not in kept[-1:]:
            kept.append(step)
            # One more than is kept: a run that resumes from this checkpoint
            # removes the outdated one if a kill came before it was.
            entries['keep_ckpt_ids'] = kept
        self._error = save_with(
            runner,
            entries,
            lambda: save_run(
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
            ),
        )
        if self._error is not None:
            self._report(runner, self._error)
            return
        self.last_ckpt = path
        if limited:
            self._remove_outdated(runner, kept)

    def _remove_outdated(self, runner: Runner, kept: list[int]) -> None:
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.extend(kept[len(self.keep_ckpt_ids) :])
        runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids])
        for step in outdated:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(step)
            )
            self._remove(runner, path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        scores = [
            self._if_better(runner, metric, rule, metrics[metric])
            for metric, rule in zip(
                self.key_indicators, self.rules, strict=True
            )
        ]
        # The main process decides: what follows waits for all of them.
        broadcast_object_list(scores)
        saved = [
            self._save_best(runner, metric, score)
            for metric, score in zip(self.key_indicators, scores, strict=True)
            if score is not None
        ]
        if not any(saved) or self.last_ckpt is None:
            return
        # The last checkpoint does not know of the best one yet.
        if self.by_epoch or window_is_closed(runner):
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
        else:
            self._due = True

    def _if_better(
        self, runner: Runner, metric: str, rule: str, score: float | None
    ) -> float | None:
        """Return a score that is better than the best before, or None."""
        best = runner.message_hub.runtime_info.get(
            self._names(metric)[0], self.init_value_map[rule]
        )
        if score is None or not self.is_better_than[metric](score, best):
            return None
        return score

    def _names(self, metric: str) -> tuple[str, str]:
        """Return what mmengine calls a best score and its file in the hub."""
        end = f'_{metric}' if len(self.key_indicators) > 1 else ''
        return f'best_score{end}', f'best_ckpt{end}'

    def _save_best(self, runner: Runner, metric: str, score: float) -> bool:
        """Save the best checkpoint of a metric; return whether it is there.

        The one before is removed after it. A kill between the two leaves
        both; one before the regular checkpoint is saved again leaves the new
        one, and a resumed run goes by the score before.
        """
        step = runner.epoch if self.by_epoch else runner.iter
        filename = f'best_{metric}_{self.filename_tmpl.format(step)}'
        filename = filename.replace('/', '_')
        path = self.file_backend.join_path(self.out_dir, filename)
        names = self._names(metric)
        before = runner.message_hub.runtime_info.get(names[1])
        error = save_with(
            runner,
            dict(zip(names, (score, path), strict=True)),
            lambda: runner.save_checkpoint(
                self.out_dir,
                filename,
                file_client_args=self.file_client_args,
                save_optimizer=False,
                save_param_scheduler=False,
                meta=dict(epoch=runner.epoch, iter=runner.iter),
                by_epoch=False,
                backend_args=self.backend_args,
            ),
        )
        lost = self._lost.get(metric)
        if lost is None or not self.is_better_than[metric](lost[0], score):
            self._lost.pop(metric, None)
            if error is not None:
                self._lost[metric] = score, error
        if error is not None:
            self._report_best(runner, f'{metric}={score:.4f}', before, error)
            return False
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[metric] = path
        runner.logger.info(
            f'The best checkpoint with {score:0.4f} {metric} at {step} '
            f'{"epoch" if self.by_epoch else "iter"} is saved to {filename}.'
        )
        # The same if a resumed run comes to it once more: it is replaced.
        if before and os.path.realpath(before) != os.path.realpath(path):
            self._remove(runner, before)
        return True

    def _remove(self, runner: Runner, path: str) -> None:
        """Remove an outdated checkpoint, or say that it stays."""
        if not is_main_process():
            return
        try:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
                runner.logger.info(f'Removed {path}, which is outdated.')
        except OSError as error:
            runner.logger.warning(
                f'{path} is outdated and could not be removed: {error}. '
                'Remove it yourself.'
            )

    def _report(self, runner: Runner, error: OSError) -> None:
        """Say what is lost, what is not, and what to do."""
        if not is_main_process():
            return
        kept = self.last_ckpt or runner.message_hub.runtime_info.get(
            'last_ckpt'
        )
        kept = f'{Path(kept).name} is kept' if kept else 'there is none yet'
        runner.logger.error(
            f'NO CHECKPOINT WAS SAVED: {error}. Of those before, {kept}. '
            'Training goes on, and saves again at the next interval: '
            f'{REMEDY}.'
        )

    def _report_best(
        self, runner: Runner, score: str, before: str | None, error: OSError
    ) -> None:
        """The same of the best checkpoint."""
        if not is_main_process():
            return
        kept = (
            f'The best before, {Path(before).name}, is kept'
            if before
            else 'There is none from before'
        )
        runner.logger.error(
            f'THE BEST CHECKPOINT WAS NOT SAVED ({score}): {error}. {kept}. '
            'Training goes on, and saves the next that is better than the '
            f'one kept: {REMEDY}.'
        )


def save_with(
    runner: Runner, entries: dict[str, Any], save: Callable[[], object]
) -> OSError | None:
    """Save with entries in the message hub, which go again if it fails.

    Every process must call it.

    Args:
        runner (Runner): The runner.
        entries (dict[str, Any]): What the checkpoint says of itself.
        save (Callable): Saves, on the main process.

    Returns:
        OSError | None: Why it failed, in all processes alike: those that
        went on by themselves would wait for others that do not come.
    """
    info = runner.message_hub.runtime_info
    before = {name: info[name] for name in entries if name in info}
    runner.message_hub.update_info_dict(entries)
    error = None
    try:
        save()
    except OSError as caught:
        error = caught
    # In words, as not every error can be sent.
    words = [error and str(error)]
    broadcast_object_list(words)
    if words[0] is None:
        return None
    for name in entries:
        info.pop(name)
    info.update(before)
    return error or OSError(words[0])
