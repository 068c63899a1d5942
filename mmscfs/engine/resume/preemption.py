# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, cast

import torch
import torch.distributed as dist
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import write_atomically

from ..meeting import time_limit
from .files import ATOMIC, INTERRUPTED, LAST, is_local
from .loop import ResumableEpochLoop, window_is_closed

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
BY_HAND = 128 + signal.SIGINT  # as shells have it
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Names the file in which tools/processes.py wants to know how a save ended.
SAVE_FAILED = 'MMSCFS_SAVE_FAILED'
# What the signals did before the run.
_before: dict[int, Any] = {}


def stop_listening() -> None:
    """Restore what the signals did before the run."""
    PreemptionHook.has_run = False
    while _before:
        signal.signal(*_before.popitem())


def stand_apart() -> None:
    """Keep the signals that end a run from a process that works for it.

    The run still needs the workers of its loaders and its pools to reach the
    iteration after which it is saved, or the end of a validation. Launchers
    signal its process group, and some schedulers send SIGUSR1 to every
    process. SIGTERM ends such a process, as its parent expects.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def mask_signals(how: int) -> None:
    """Have the signals wait while a run forks, or no longer."""
    if PreemptionHook.has_run:
        signal.pthread_sigmask(how, SIGNALS)


def after_fork() -> None:
    """Keep the process that a run has forked apart from it."""
    if PreemptionHook.has_run:
        stand_apart()
        mask_signals(signal.SIG_UNBLOCK)
        _before.clear()
        PreemptionHook.has_run = False


os.register_at_fork(
    before=partial(mask_signals, signal.SIG_BLOCK),
    after_in_parent=partial(mask_signals, signal.SIG_UNBLOCK),
    after_in_child=after_fork,
)


def tell_launcher(failed: bool) -> None:
    """Tell tools/processes.py whether the save before the end failed.

    Once torchrun was sent a signal, it no longer says how processes ended.
    """
    if path := os.environ.get(SAVE_FAILED):
        with suppress(OSError):
            Path(path).write_text(str(int(failed)))


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save the run and end it when the cluster or its user asks for it.

    After SIGTERM, SIGUSR1 or Ctrl-C the run ends at the next iteration at
    which no gradients accumulate: it is saved as ``interrupted.pth``, from
    which ``--resume`` continues, and every process exits with code 75, for
    launchers that queue it again, or after Ctrl-C with 130. It is enough that
    one process of several gets the signal: in each iteration they start to
    exchange over the CPU whether one did, and read the answer one iteration
    later, when it is there. A signal during a validation waits for its end.
    A run in a thread other than the main one gets no signals, and says so.

    Args:
        echo (float): Seconds in which further signals are taken for the same
            one, which launcher and scheduler both sent. A later one stops
            the process at once, with the files from before in place.
            Defaults to 5.

    Example:
        >>> default_hooks = dict(preemption=dict(type='PreemptionHook'))
    """

    # After the checkpoint of the same iteration.
    priority = 'LOWEST'
    # Whether processes that this one forks work for a run.
    has_run: ClassVar[bool] = False

    def __init__(self, echo: float = 5.0) -> None:
        self.echo = echo
        self._signal: int | None = None
        self._ending = False
        self._exchange: tuple[torch.Tensor, dist.Work] | None = None
        # Now: mmengine's loop of iterations starts workers when it is built.
        PreemptionHook.has_run = True

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        # A separate group: what it waits for must not wait for other work.
        self._group: dist.ProcessGroup | None = None
        if is_distributed():  # of all processes: each is a member
            group = dist.new_group(
                backend='gloo', timeout=time_limit(runner.cfg)
            )
            self._group = cast(dist.ProcessGroup, group)
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning(
                'This run trains in a thread, to which Python gives no '
                'signals: Ctrl-C and SIGTERM do not save it.'
            )
            return
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
        """Stop listening."""
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
                    b'\nCtrl-C: saving after the iteration or validation '
                    b'under way. Press it again after %.0f s to quit now.\n'
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
        name = (
            signal.Signals(self._signal).name
            if self._signal
            else 'another process got a signal'
        )
        runner.logger.warning(
            f'Asked to end ({name}): saving iteration {runner.iter + 1}.'
        )
        failed = torch.zeros(1)
        try:
            path = save_interrupted(runner)
        except OSError as error:
            runner.logger.error(
                f'NO CHECKPOINT WAS SAVED: {error}. Those from before are '
                'kept. Free disk space before you resume.'
            )
            failed.fill_(1)
        else:
            runner.logger.warning(f'Saved {path}. Continue with --resume.')
        # None ends before the one that saves has: launchers end them all
        # with the first.
        if self._group is not None:
            dist.all_reduce(failed, dist.ReduceOp.MAX, self._group)
        code = BY_HAND if self._signal == signal.SIGINT else REQUEUE
        tell_launcher(bool(failed))
        sys.exit(1 if failed else code)


def save_interrupted(runner: Runner) -> str:
    """Save the run where its checkpoint hook does, and note it as the last.

    Every process must call it.

    Returns:
        str: The checkpoint's path.

    Raises:
        OSError: It cannot be written; the files from before are kept.
    """
    if isinstance(runner.train_loop, ResumableEpochLoop):
        runner.train_loop.note_position()
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    folder = str(hooks[0].out_dir if hooks else runner.work_dir)
    runner.save_checkpoint(
        folder,
        INTERRUPTED,
        meta=dict(epoch=runner.epoch, iter=runner.iter + 1),
        by_epoch=False,
        backend_args=dict(backend=ATOMIC) if is_local(folder) else None,
    )
    path = f'{folder.rstrip("/")}/{INTERRUPTED}'
    if is_main_process():
        write_atomically(Path(runner.work_dir, LAST), path.encode())
    return path
