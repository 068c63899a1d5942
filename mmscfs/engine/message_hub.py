# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import Tensor


class DeferredMessageHub(MessageHub):
    """A message hub whose scalars stay on the device until someone asks.

    mmengine's hub reads every scalar when it is logged, and so waits for the
    device many times a step. This one reads all that waits in one transfer
    as soon as any of its histories is asked for, so that whoever asks finds
    what would be in mmengine's: every iteration, in order. A history that
    was asked for before is up to date again once the hub is asked again.
    """

    # What waits: one row for each call of defer_scalars, all of these names.
    _names: tuple[str, ...]
    _rows: list[Tensor]

    @classmethod
    def adopt(cls, hub: MessageHub) -> None:
        """Turn a hub into one of these, as the same object: many hold it."""
        if not isinstance(hub, cls):
            hub.__class__ = cls
            hub._names, hub._rows = (), []

    @property
    def waiting(self) -> bool:
        """Whether scalars are still on the device."""
        return bool(self._rows)

    def defer_scalars(self, scalars: Mapping[str, Tensor]) -> None:
        """Log scalars without reading them.

        New names and what is no float on one device are read at once: the
        log shows its terms in the order in which they first came.
        """
        values, names = [*scalars.values()], tuple(scalars)
        if not all(name in self._log_scalars for name in names) or not (
            all(isinstance(v, Tensor) for v in values)
            and all(v.is_floating_point() for v in values)
            and len({v.device for v in values}) == 1
        ):
            for name, value in scalars.items():
                self.update_scalar(name, value)
            return
        if names != self._names:
            self.receive()
            self._names = names
        self._rows.append(torch.stack([v.detach().squeeze() for v in values]))

    def receive(self) -> None:
        """Read what waits, in one transfer."""
        rows, names = self._rows, self._names
        if not rows:
            return
        self._names, self._rows = (), []
        columns = torch.stack(rows).cpu().T.tolist()
        for name, values in zip(names, columns, strict=True):
            extend_history(self._log_scalars[name], values)

    def update_scalar(self, key: str, *args: Any, **kwargs: Any) -> None:
        """Log a scalar now, after those of its name that wait."""
        if key in self._names:
            self.receive()
        super().update_scalar(key, *args, **kwargs)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the whole history of a name."""
        if key in self._log_scalars and key not in self._names:
            return self._log_scalars[key]  # nothing of it waits
        return super().get_scalar(key)

    @property
    def log_scalars(self) -> dict[str, HistoryBuffer]:
        """Every history, whole."""
        self.receive()
        return super().log_scalars

    def state_dict(self) -> dict:
        """Return what a checkpoint keeps."""
        self.receive()
        return super().state_dict()


def extend_history(history: HistoryBuffer, values: list[float]) -> None:
    """Append values at once; ``update`` copies the history for each."""
    length = history.max_length
    for name, new in (
        ('_log_history', values),
        ('_count_history', [1] * len(values)),
    ):
        old = getattr(history, name)
        setattr(history, name, np.append(old, new)[-length:])
