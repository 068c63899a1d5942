# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ..runner_access import log_is_due

SHOWN = 32  # images in an error


class Iteration(NamedTuple):
    """What is remembered of an iteration until its figures are read."""

    number: int  #: Counted from 1.
    figures: dict[str, Tensor]  #: What it logged, still on the device.
    files: list[str]  #: The images of this process.
    #: Whether the optimizer's step was due, after as many batches as it
    #: accumulates.
    due: bool

    def describe(self, what: str) -> str:
        """Say what is not finite, and in which images, the first of many."""
        text = f'iteration {self.number}: not finite: {what}'
        if self.files:
            text += f'; images of process {get_rank()}: '
            text += ', '.join(self.files[:SHOWN])
        if len(self.files) > SHOWN:
            text += f' and {len(self.files) - SHOWN} more'
        return text


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop a run whose figures are not finite, before they are saved.

    At the first loss or other figure that is not finite the run stops. A
    step whose gradients alone are not finite changes no weight, which
    ``PerParamClipOptimWrapper`` sees to: in fp16 they overflow now and then.
    Such steps are logged as ``skipped``; ``max_skipped`` in a row stop the
    run as well.

    Reads the figures whenever the log does, and before a checkpoint is
    written or a validation begins. Between, it adds nothing to a step. A
    checkpoint whose weights or buffers are not numbers is never written.

    Args:
        max_skipped (int): Steps in a row. More than the 16 after which fp16
            has halved its first loss scale to 1. Defaults to 20.

    Raises:
        FloatingPointError: Names the iteration, what is not finite, the
            images of this process and the last checkpoint.
        ValueError: ``max_skipped`` is less than 1.
    """

    priority = 'HIGHEST'  # before the figures are logged

    def __init__(self, max_skipped: int = 20) -> None:
        if max_skipped < 1:
            raise ValueError(
                f'NonFiniteLossHook: max_skipped={max_skipped} must be >= 1'
            )
        self.max_skipped = max_skipped
        self._unread: list[Iteration] = []
        self._skipped: list[Iteration] = []  # in a row

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Remember the figures, and log whether the step was skipped."""
        outputs = {} if outputs is None else outputs
        skipped = getattr(runner.optim_wrapper, 'skipped', None)
        due = skipped is not None and runner.optim_wrapper.should_update()
        if outputs and skipped is not None:
            outputs['skipped'] = skipped if due else torch.zeros_like(skipped)
        figures = {k: torch.as_tensor(v).detach() for k, v in outputs.items()}
        batch = data_batch if isinstance(data_batch, dict) else {}
        samples = batch.get('data_samples') or ()
        files = [s.img_path for s in samples if 'img_path' in s]
        self._unread.append(Iteration(runner.iter + 1, figures, files, due))
        if log_is_due(runner, batch_idx):
            self.check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check what is left, before the epoch is saved."""
        self.check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """The same before a validation."""
        self.check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The same before any checkpoint, and check what it would save."""
        self.check(runner)
        for name, value in checkpoint['state_dict'].items():
            if isinstance(value, Tensor) and value.isnan().any():
                raise FloatingPointError(
                    f'iteration {runner.iter}: {name} of the model is not a '
                    f'number, though every figure is; {remedy(runner)}'
                )

    def check(self, runner: Runner) -> None:
        """Check the figures since the last check.

        Raises:
            FloatingPointError: One is not finite, or too many steps were
                skipped.
        """
        unread, self._unread = self._unread, []
        values = read([v for batch in unread for v in batch.figures.values()])
        for batch in unread:
            figures = {name: next(values) for name in batch.figures}
            bad = [
                f'{name}={value}'
                for name, value in figures.items()
                if not math.isfinite(value)
            ]
            if bad:
                text = batch.describe(', '.join(bad))
                raise FloatingPointError(f'{text}; {remedy(runner)}')
            if batch.due:
                skipped = figures.get('skipped')
                self._skipped = [*self._skipped, batch] if skipped else []
            if len(self._skipped) == self.max_skipped:
                first = self._skipped[0].describe('a gradient')
                raise FloatingPointError(
                    f'{self.max_skipped} steps in a row were skipped, up to '
                    f'iteration {batch.number} (default_hooks.'
                    f'non_finite_loss.max_skipped={self.max_skipped}). The '
                    f'first: {first}; {remedy(runner)}'
                )


def read(figures: Sequence[Tensor]) -> Iterator[float]:
    """Yield scalars that lie on the device, after one transfer."""
    if figures:
        device = figures[0].device
        scalars = [x.reshape(()).to(device, torch.float32) for x in figures]
        yield from torch.stack(scalars).tolist()


def remedy(runner: Runner) -> str:
    """Say how to continue after a run that had to be stopped."""
    slower = 'a lower learning rate or a longer warm-up'
    precision = ''
    if hasattr(runner.optim_wrapper, 'precision'):
        precision = "optim_wrapper.precision='bf16' or 'fp32', or "
    last = runner.message_hub.runtime_info.get('last_ckpt')
    if not last:
        return (
            f'no checkpoint was saved yet: start again with {precision}'
            f'{slower}'
        )
    return (
        f'resume from the last good checkpoint, {last}, by --resume with '
        f'{precision}a lower optim_wrapper.clip_grad.max_norm; {slower} '
        'needs a new run, as --resume keeps the old schedule'
    )
