# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.evaluation import CollapseCriteria

from ..runner_access import unwrapped_model
from .deferred_runtime_info_hook import read_hub


@HOOKS.register_module()
class CollapseMonitorHook(Hook):
    """Warn once, in plain words, when the logged figures show collapse.

    It looks at the last ``window`` iterations every ``window`` iterations, in
    the log's history, so it waits for the device only then. It takes
    the mean of all processes, so that all of them find the same.

    Args:
        stop (bool): Stop the run after the warning. Defaults to False.
        **criteria: ``begin``, ``window``, ``tolerance`` and
            ``min_divergence`` of
            :class:`mmscfs.evaluation.CollapseCriteria`, which says what
            counts as collapse.

    Raises:
        ValueError: A setting is outside its range.
        RuntimeError: The run has collapsed, and ``stop`` is True.

    Example:
        >>> default_hooks = dict(
        ...     collapse_monitor=dict(
        ...         type='CollapseMonitorHook', begin=500, stop=True
        ...     )
        ... )
    """

    def __init__(self, stop: bool = False, **criteria: Any) -> None:
        self.criteria = CollapseCriteria(**criteria)
        self.stop = stop
        self._warned = False

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Look at the last window, and warn on the first finding."""
        window = self.criteria.window
        if (
            self._warned
            or runner.iter + 1 < self.criteria.first_look
            or not self.every_n_train_iters(runner, window)
        ):
            return
        head = unwrapped_model(runner).head
        hub = read_hub(runner)
        figures = torch.tensor(
            [
                hub.get_scalar(f'train/{name}').mean(window)
                for name in ('teacher_entropy', 'loss_dino')
            ],
            dtype=torch.float64,
        )
        # Each has logged its own images: one alone must not stop.
        all_reduce(figures, 'mean')
        entropy, loss = figures.tolist()
        finding = self.criteria.diagnose(
            entropy,
            loss / (head.loss_weight or math.nan),  # not trained: not judged
            head.num_prototypes,
        )
        if finding:
            self._warned = True
            runner.logger.warning(
                f'The model seems to have collapsed by iteration '
                f'{runner.iter + 1}: {finding}.'
            )
        if finding and self.stop:
            last = hub.runtime_info.get('last_ckpt')
            raise RuntimeError(
                f'stopped at iteration {runner.iter + 1}, since the model '
                f'seems to have collapsed: {finding}. Last checkpoint: '
                f'{last or "none"}, which may have collapsed as well; '
                'default_hooks.collapse_monitor.stop=False only warns'
            )
