# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ..runner_access import log_is_due


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook, without waiting for the device in every step.

    mmengine reads every scalar when it is logged, and so waits for the device
    many times a step. This hook keeps losses and health figures on the device
    and reads them in one transfer, at the log's interval, at the end of an
    epoch and before a checkpoint is saved. Names, values and their order are
    mmengine's, but for the learning rate, which is logged once. A hook that
    needs them in between calls :func:`read_hub`.
    """

    def __init__(self) -> None:
        # What waits: one row for each iteration, all of these names.
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Leave out what a checkpoint of version 0.1 has of the base rate.

        It would stand still in the log.
        """
        super().before_train(runner)
        histories = runner.message_hub.log_scalars
        for name in [n for n in histories if n.endswith('base_lr')]:
            del histories[name]

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Log the learning rate; of several groups, that without factors."""
        hub = runner.message_hub
        hub.update_info('iter', runner.iter)
        rates = runner.optim_wrapper.get_lr()
        for name, rate in rates.items():
            if not name.endswith('base_lr'):
                base = rates.get(f'{name.removesuffix("lr")}base_lr', rate)
                hub.update_scalar(f'train/{name}', base[0])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Keep a step's scalars, and read them if the log is due.

        Here rather than in the log, so that the timer counts the wait for
        the device as part of the step and not of the next one's loading.
        """
        hub = runner.message_hub
        self.keep(hub, {f'train/{k}': v for k, v in (outputs or {}).items()})
        if log_is_due(runner, batch_idx):
            self.receive(hub)

    def after_train_epoch(self, runner: Runner) -> None:
        """Let nothing wait longer than an epoch."""
        self.receive(runner.message_hub)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the checkpoint, which has a copy already, what waited."""
        self.receive(runner.message_hub)
        state = runner.message_hub.state_dict()
        checkpoint['message_hub']['log_scalars'] = state['log_scalars']

    def keep(self, hub: MessageHub, scalars: Mapping[str, Any]) -> None:
        """Log scalars without reading them.

        New names and what is not a float on one device are read at once: the
        log shows its terms in the order in which they first came.
        """
        values, names = [*scalars.values()], tuple(scalars)
        if not all(name in hub.log_scalars for name in names) or not (
            all(isinstance(v, Tensor) for v in values)
            and all(v.is_floating_point() for v in values)
            and len({v.device for v in values}) == 1
        ):
            self.receive(hub)
            for name, value in scalars.items():
                hub.update_scalar(name, value)
            return
        if names != self._names:
            self.receive(hub)
            self._names = names
        self._rows.append(torch.stack([v.detach().squeeze() for v in values]))

    def receive(self, hub: MessageHub) -> None:
        """Read what waits into the hub, in one transfer."""
        if not self._rows:
            return
        columns = torch.stack(self._rows).cpu().T.tolist()
        for name, values in zip(self._names, columns, strict=True):
            # At once: HistoryBuffer.update copies the history for each.
            history = hub.log_scalars[name]
            logged, counts = history.data
            length = history.max_length
            hub.log_scalars[name] = HistoryBuffer(
                np.append(logged, values)[-length:],
                np.append(counts, [1] * len(values))[-length:],
                length,
            )
        self._names, self._rows = (), []


def read_hub(runner: Runner) -> MessageHub:
    """Return the run's message hub with every value logged so far.

    Reads what waits on the device, and so waits for it.

    Example:
        >>> read_hub(runner).get_scalar('train/loss').mean(100)
    """
    for hook in runner.hooks:
        if isinstance(hook, DeferredRuntimeInfoHook):
            hook.receive(runner.message_hub)
    return runner.message_hub
