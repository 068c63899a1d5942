# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
import torch.distributed as dist
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import DataLoader

from ..saving import ATOMIC, is_local, save_run, window_is_closed

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
BY_HAND = 128 + signal.SIGINT  # as shells have it
FILENAME = 'interrupted.pth'
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Names the file in which tools/processes.py wants to know how a save ended.
SAVE_FAILED = 'MMSCFS_SAVE_FAILED'
PR_SET_PDEATHSIG = 1  # Linux: the signal that comes when the parent ends
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith('linux') else None
# What the signals did before the run.
_before: dict[int, Any] = {}
_forking = threading.local()


def stop_listening() -> None:
    """Have the signals do again what they did before the run."""
    while _before:
        signal.signal(*_before.popitem())


def hold_signals() -> None:
    """Have the signals wait while the process forks."""
    if _before:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        _forking.in_main = (
            threading.current_thread() is threading.main_thread()
        )


def release_signals(child: bool) -> None:
    """Let them come again, in a child as before the run."""
    if _before:
        if child:
            stop_listening()
            stand_apart()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def stand_apart() -> None:
    """Keep what launchers send to the run's process group from a child.

    The run still needs its loaders' workers and its pools to get to the
    iteration that it is saved after, or out of a validation.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Neither does a launcher's SIGKILL reach it, and not all notice that the
    # run has gone. To the kernel the parent is the thread that forks, which
    # may end before the run.
    if _prctl is not None and getattr(_forking, 'in_main', False):
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# A child that inherited the hook's answer to SIGTERM could not be ended: a
# pool of processes, as mmdet's VOC metric has one, would wait for ever.
os.register_at_fork(
    before=hold_signals,
    after_in_parent=partial(release_signals, child=False),
    after_in_child=partial(release_signals, child=True),
)


def keep_workers_apart(runner: Runner) -> None:
    """Have the workers of all loaders start with :func:`start_apart`."""
    for loop in (runner.train_loop, runner.val_loop):
        for name in ('dataloader', 'bank_dataloader'):
            loader = getattr(loop, name, None)
            if isinstance(loader, DataLoader):
                loader.worker_init_fn = partial(
                    start_apart, loader.worker_init_fn
                )


def start_apart(start: Callable | None, worker: int) -> None:
    """Start a loader's worker where no signal to the run ends it.

    One that is forked is in a process group of its own already, one that is
    spawned is not; and some schedulers send SIGUSR1 to every process.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if start is not None:
        start(worker)


def tell_launcher(failed: bool) -> None:
    """Tell tools/processes.py whether the save before the end failed.

    torchrun, once it was sent a signal, says no more how processes ended.
    """
    if path := os.environ.get(SAVE_FAILED):
        with suppress(OSError):
            Path(path).write_text(str(int(failed)))


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
        """Listen to the signals, and keep them from the loaders' workers."""
        keep_workers_apart(runner)
        # Of its own: what it waits for must not wait for other work.
        self._group: dist.ProcessGroup | None = None
        if is_distributed():  # of all processes: each is a member
            group = dist.new_group(backend='gloo')
            self._group = cast(dist.ProcessGroup, group)
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
            flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True
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
        tell_launcher(bool(failed))
        sys.exit(1 if failed else code)

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
