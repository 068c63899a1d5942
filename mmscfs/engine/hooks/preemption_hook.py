# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import signal
import sys
import time
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..saving import ATOMIC, is_local, save_run, window_is_closed

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
BY_HAND = 128 + signal.SIGINT  # as shells have it
FILENAME = 'interrupted.pth'
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# What the signals did before the run.
_before: dict[int, Any] = {}


def stop_listening() -> None:
    """Have the signals do again what they did before the run."""
    while _before:
        signal.signal(*_before.popitem())


def hold_signals() -> None:
    """Have the signals wait while the process forks."""
    if _before:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals(child: bool) -> None:
    """Let them come again, in a child as before the run."""
    if _before:
        if child:
            stop_listening()
            # A terminal's Ctrl-C is for all: the run still needs its loaders.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


# A child that inherited the hook's answer to SIGTERM could not be ended: a
# pool of processes, as mmdet's VOC metric has one, would wait for ever.
os.register_at_fork(
    before=hold_signals,
    after_in_parent=partial(release_signals, child=False),
    after_in_child=partial(release_signals, child=True),
)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save the run and end it when the cluster or its user asks for it.

    After SIGTERM, SIGUSR1 or Ctrl-C the run ends at the next iteration at
    which no gradients accumulate: it is saved as ``interrupted.pth``, from
    which ``--resume`` goes on exactly, and every process exits with code 75,
    for launchers that queue it again, or after Ctrl-C with 130. It is
    enough that one process of several got the signal: in each iteration they
    start to exchange over the CPU whether one did, and read the answer one
    iteration later, when it is there. A signal during a validation waits for
    its end.

    Args:
        echo (float): Seconds in which further signals are taken for the same
            one, which launcher and scheduler both sent. A later one stops
            the process at once, with the files from before in place.
            Defaults to 5.

    Raises:
        ValueError: ``echo`` is negative.
    """

    # After the checkpoint of the same iteration.
    priority = 'LOWEST'

    def __init__(self, echo: float = 5.0) -> None:
        if echo < 0:
            raise ValueError(f'PreemptionHook: echo={echo} must be >= 0')
        self.echo = echo
        self._signal: int | None = None
        self._ending = False
        self._exchange: tuple[torch.Tensor, dist.Work] | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        # Of its own: what it waits for must not wait for other work.
        self._group = (
            dist.new_group(backend='gloo') if is_distributed() else None
        )
        for number in SIGNALS:
            # Shells have background jobs ignore Ctrl-C: so do we.
            if signal.getsignal(number) != signal.SIG_IGN:
                _before.setdefault(
                    number, signal.signal(number, self._receive)
                )

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save and end if one process was asked to."""
        self._ending = self._ending or self._agreed()
        if (
            self._ending
            and window_is_closed(runner)
            and runner.iter + 1 < runner.max_iters
        ):
            self._end(runner)

    def after_train(self, runner: Runner) -> None:
        """Listen no longer."""
        if self._exchange is not None:
            self._exchange[1].wait()
        stop_listening()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._since = number, now
            if number == signal.SIGINT and is_main_process():
                # No logging or printing, which the signal may interrupt.
                os.write(
                    2,
                    b'\nCtrl-C: the run is saved after this step; once more, '
                    b'in %.0f seconds or later, ends it at once.\n'
                    % self.echo,
                )
        elif now > self._since + self.echo:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _agreed(self) -> bool:
        """Return, in all processes alike, whether one got a signal."""
        asked = self._signal is not None
        if self._group is None:
            return asked
        before, self._exchange = self._exchange, None
        if before is not None:
            flag, work = before
            work.wait()
            if flag.item():
                return True
        flag = torch.tensor([int(asked)])
        work = dist.all_reduce(
            flag, dist.ReduceOp.MAX, self._group, async_op=True
        )
        self._exchange = flag, work
        return False

    def _end(self, runner: Runner) -> None:
        name = signal.Signals(self._signal).name if self._signal else 'one'
        runner.logger.warning(
            f'Asked to end ({name}): saving iteration {runner.iter + 1}.'
        )
        failed = torch.zeros(1)
        try:
            path = self._save(runner)
        except OSError as error:
            runner.logger.error(
                f'NO CHECKPOINT WAS SAVED: {error}. Those from before are '
                'kept; free room before you resume.'
            )
            failed.fill_(1)
        else:
            runner.logger.warning(
                f'Saved {path}; go on from it with --resume.'
            )
        # None ends before the one that saves has: launchers end them all
        # with the first.
        if self._group is not None:
            dist.all_reduce(failed, dist.ReduceOp.MAX, self._group)
        code = BY_HAND if self._signal == signal.SIGINT else REQUEUE
        sys.exit(1 if failed.item() else code)

    def _save(self, runner: Runner) -> str:
        out_dir = next(
            (
                hook.out_dir
                for hook in runner.hooks
                if isinstance(hook, CheckpointHook)
            ),
            runner.work_dir,
        )
        return save_run(
            runner,
            str(out_dir),
            FILENAME,
            meta=dict(epoch=runner.epoch, iter=runner.iter + 1),
            by_epoch=False,
            backend_args=dict(backend=ATOMIC) if is_local(out_dir) else None,
        )
