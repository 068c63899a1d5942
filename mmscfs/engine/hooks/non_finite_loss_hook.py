# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
import math
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from ..runner_access import unwrapped_model
from .deferred_runtime_info_hook import read_hub

SHOWN = 32  # images in an error
IN_ROW = 'steps_skipped_in_row'


class Iteration(NamedTuple):
    """What is remembered of an iteration until its figures are read.

    Attributes:
        number (int): Counted from 1.
        names (tuple[str, ...]): The figures that it logged.
        files (list[str]): The images of this process.
        steps (bool): Whether the optimiser was due, after as many batches
            as it accumulates.
    """

    number: int
    names: tuple[str, ...]
    files: list[str]
    steps: bool


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Keep what is not finite out of a run, and stop one that has much of it.

    A step whose loss or gradient is not finite is skipped by
    ``PerParamClipOptimWrapper``. This hook then puts back what the forward
    pass has changed in the buffers, such as batch norm's statistics or a
    queue of keys, so that the step leaves no trace; logs the share of such
    steps as ``skipped``; and stops the run after ``max_skipped`` in a row.
    With another wrapper, or if a figure is not finite although the step was
    taken, it stops at the first.

    Looks at the figures when the log has read them from the device, so it
    adds no synchronisation: before the next iteration with mmengine's
    ``RuntimeInfoHook``, after the log's interval with
    :class:`DeferredRuntimeInfoHook`; and always before a checkpoint is
    written or a validation begins.

    Args:
        max_skipped (int): Steps in a row. More than the 16 after which fp16
            has halved its first loss scale to 1. Defaults to 20.

    Raises:
        FloatingPointError: Names the first such iteration, its terms, the
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
        self._first = ''  # of the steps skipped in a row, in words
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._begins_step = True

    def before_train(self, runner: Runner) -> None:
        """Find the buffers to put back after a skipped step."""
        if hasattr(runner.optim_wrapper, 'skipped'):
            state = unwrapped_model(runner).state_dict(keep_vars=True)
            self._kept = [
                (value, value.detach().clone())
                for value in state.values()
                if not isinstance(value, nn.Parameter)
            ]

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Check what the log has read, and remember the buffers."""
        if not any(getattr(hook, 'waiting', False) for hook in runner.hooks):
            self.check(runner)
        if self._begins_step and self._kept:
            own, copies = zip(*self._kept, strict=True)
            torch._foreach_copy_(copies, own)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Undo what a skipped step has left, and log that it was skipped."""
        wrapper = runner.optim_wrapper
        skips = hasattr(wrapper, 'skipped')
        steps = not skips or wrapper.should_update()
        self._begins_step = steps
        if skips:
            skipped = steps and wrapper.skipped
            restore(self._kept, skipped)
            if outputs:
                outputs['skipped'] = as_scalar(skipped, outputs['loss'])
        names = tuple(outputs or ())
        files = batch_files(data_batch)
        self._unread.append(Iteration(runner.iter + 1, names, files, steps))

    def after_train_epoch(self, runner: Runner) -> None:
        """Check what is left, before the epoch is saved."""
        self.check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """The same before a validation."""
        self.check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The same before any other checkpoint, which has a copy already."""
        self.check(runner)
        info = checkpoint['message_hub']['runtime_info']
        info[IN_ROW] = runner.message_hub.runtime_info[IN_ROW]

    def check(self, runner: Runner) -> None:
        """Check the figures logged since the last check.

        Raises:
            FloatingPointError: Too many steps were skipped, or one was taken
                although a figure is not finite.
        """
        figures = read_figures(runner, self._unread)
        steps, self._unread = whole_steps(self._unread)
        hub = runner.message_hub  # which checkpoints keep
        in_row = hub.runtime_info.get(IN_ROW, 0)
        found = []
        for step in steps:
            bad, number = describe(step, figures), step[-1].number
            if not figures[number].get('skipped'):
                in_row = 0
                if bad:
                    raise FloatingPointError(f'{bad}; {remedy(runner)}')
                continue
            found.append(bad or describe_gradient(step))
            if in_row == 0 or not self._first:
                self._first = found[-1]
            in_row += 1
            if in_row >= self.max_skipped:
                raise FloatingPointError(
                    f'{in_row} steps in a row were skipped, up to '
                    f'iteration {number} (default_hooks.non_finite_loss.'
                    f'max_skipped={self.max_skipped}). The first: '
                    f'{self._first}; {remedy(runner)}'
                )
        hub.update_info(IN_ROW, in_row)
        if found:
            scaled = runner.optim_wrapper.precision == 'fp16'
            runner.logger.log(
                # That a gradient overflows now and then is how it scales.
                logging.INFO if scaled else logging.WARNING,
                f'steps skipped: {len(found)}; the first: {found[0]}',
            )


def restore(kept: list[tuple[Tensor, Tensor]], skipped: bool | Tensor) -> None:
    """Put values back, if a step was skipped.

    Args:
        kept (list[tuple[Tensor, Tensor]]): Pairs of a value and its copy.
        skipped (bool | Tensor): 1 or 0 if only the device knows.
    """
    if isinstance(skipped, Tensor):
        for own, copy in kept:
            torch.where(skipped > 0, copy, own, out=own)
    elif skipped:
        for own, copy in kept:
            own.copy_(copy)


def as_scalar(skipped: bool | Tensor, like: Tensor | float) -> Tensor:
    """Return a flag as a float tensor on the device of another figure."""
    if isinstance(skipped, Tensor):
        return skipped
    device = like.device if isinstance(like, Tensor) else None
    return torch.full((), float(skipped), device=device)


def batch_files(data_batch: Any) -> list[str]:
    """Return the paths of a batch's images, as far as it names them."""
    samples = isinstance(data_batch, dict) and data_batch.get('data_samples')
    return [s.img_path for s in samples or () if 'img_path' in s]


def read_figures(
    runner: Runner, iterations: list[Iteration]
) -> dict[int, dict[str, float]]:
    """Return the figures of the log's last iterations, by their numbers."""
    figures: dict[int, dict[str, float]] = {
        iteration.number: {} for iteration in iterations
    }
    hub = read_hub(runner)
    for name in dict.fromkeys(n for i in iterations for n in i.names):
        history, _ = hub.get_scalar(f'train/{name}').data
        numbers = [i.number for i in iterations if name in i.names]
        values = history[-len(numbers) :]
        for number, value in zip(numbers, values, strict=True):
            figures[number][name] = value
    return figures


def whole_steps(
    iterations: list[Iteration],
) -> tuple[list[list[Iteration]], list[Iteration]]:
    """Group iterations by steps; return also those whose step is to come."""
    steps, rest = [], []
    for iteration in iterations:
        rest.append(iteration)
        if iteration.steps:
            steps.append(rest)
            rest = []
    return steps, rest


def describe(
    step: list[Iteration], figures: dict[int, dict[str, float]]
) -> str:
    """Say what is not finite in the first bad batch of a step, or ""."""
    for iteration in step:
        bad = [
            f'{name}={value}'
            for name, value in figures[iteration.number].items()
            if not math.isfinite(value)
        ]
        if bad:
            return (
                f'iteration {iteration.number}: not finite: '
                f'{", ".join(bad)}{name_files(iteration.files)}'
            )
    return ''


def describe_gradient(step: list[Iteration]) -> str:
    """Say of which step a gradient is not finite, where all figures are."""
    files = [file for iteration in step for file in iteration.files]
    return (
        f'iteration {step[-1].number}: not finite: a gradient'
        f'{name_files(files)}'
    )


def name_files(files: list[str]) -> str:
    """Say what images a batch has on this process, the first of many."""
    if not files:
        return ''
    more = f' and {len(files) - SHOWN} more' if len(files) > SHOWN else ''
    return (
        f'; images of process {get_rank()}: {", ".join(files[:SHOWN])}{more}'
    )


def remedy(runner: Runner) -> str:
    """Say how to go on after a run that had to be stopped."""
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
        f'the last checkpoint, {last}, is from before: go on from it by '
        f'--resume with {precision}a lower optim_wrapper.clip_grad.max_norm; '
        f'{slower} takes a new run, as --resume keeps the old one'
    )
