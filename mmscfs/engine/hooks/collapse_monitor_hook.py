# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..runner_access import unwrapped_model
from .deferred_runtime_info_hook import read_hub


@HOOKS.register_module()
class CollapseMonitorHook(Hook):
    """Warn once, in plain words, when the logged figures show collapse.

    Of several processes it takes the mean, so that all find the same.
    Looks at the last ``window`` iterations every ``window`` iterations, in
    the log's history, so it waits for the device then and no oftener. With K
    prototypes, collapse is a teacher whose entropy stays at 0 (all images on
    one prototype) or at ln K (all prototypes alike), a divergence of the
    student from the teacher near 0 (nothing is left to predict, as in Fig. 7
    of DINO's paper), or a loss that stays at ln K (the student tells nothing
    apart).

    Args:
        begin (int): First iteration to look at; a young run's loss is near
            ln K. Defaults to 1000.
        window (int): Iterations in a mean. Defaults to 200.
        tolerance (float): Distance from 0 or ln K that counts as there, as a
            share of ln K. Defaults to 0.005.
        min_divergence (float): Divergence (loss less entropy) below which
            there is nothing left to predict, as a share of ln K. Runs on
            small data that learnt had 0.1 and more, those that did not 0.016
            and less (docs/en/learning.md). Defaults to 0.02.
        stop (bool): Stop the run after the warning. Defaults to False.

    Raises:
        ValueError: A setting is outside its range.
        RuntimeError: The run has collapsed, and ``stop`` is True.
    """

    def __init__(
        self,
        begin: int = 1000,
        window: int = 200,
        tolerance: float = 0.005,
        min_divergence: float = 0.02,
        stop: bool = False,
    ) -> None:
        if begin < 0 or window < 1:
            raise ValueError(
                f'CollapseMonitorHook: begin={begin} must be >= 0 and window='
                f'{window} >= 1'
            )
        if not 0 < tolerance < 0.5:
            raise ValueError(
                f'CollapseMonitorHook: tolerance={tolerance} must lie in '
                '(0, 0.5)'
            )
        if not 0 <= min_divergence < 1:
            raise ValueError(
                f'CollapseMonitorHook: min_divergence={min_divergence} must '
                'lie in [0, 1)'
            )
        self.begin = begin
        self.window = window
        self.tolerance = tolerance
        self.min_divergence = min_divergence
        self.stop = stop
        self._warned = False

    def diagnose(
        self, teacher_entropy: float, loss: float, num_prototypes: int
    ) -> str | None:
        """Say what is wrong, or return None.

        Args:
            teacher_entropy (float): Mean entropy of the teacher, nats.
            loss (float): Mean cross-entropy on the last layer, nats.
            num_prototypes (int): Number K of prototypes.
        """
        top = math.log(num_prototypes)
        near = self.tolerance * top
        if teacher_entropy < near:
            return (
                f'the teacher gives every image the same prototype (entropy '
                f'{teacher_entropy:.3g} of at most {top:.3g}). Raise the '
                "teacher's temperature or lower center_momentum"
            )
        if top - teacher_entropy < near:
            return (
                f'the teacher finds all prototypes equally likely (entropy '
                f'{teacher_entropy:.4g} of at most {top:.4g}). Lower the '
                "teacher's temperature or its momentum"
            )
        if loss - teacher_entropy < self.min_divergence * top:
            return (
                f'the student has nothing left to predict (divergence '
                f'{loss - teacher_entropy:.3g}, entropy {teacher_entropy:.4g} '
                f'of at most {top:.4g}). Freeze the prototypes longer, use '
                "fewer of them, or lower the teacher's momentum"
            )
        if abs(top - loss) < near:
            return (
                f'the loss stays at ln K = {top:.4g} ({loss:.4g}): the '
                'student tells no views apart. Check the learning rate and '
                'the crops'
            )
        return None

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Look at the last window, and warn on the first finding."""
        if (
            self._warned
            or runner.iter + 1 < self.begin + self.window
            or not self.every_n_train_iters(runner, self.window)
        ):
            return
        head = unwrapped_model(runner).head
        hub = read_hub(runner)
        figures = torch.tensor(
            [
                hub.get_scalar(f'train/{name}').mean(self.window)
                for name in ('teacher_entropy', 'loss_dino')
            ],
            dtype=torch.float64,
        )
        # Each has logged its own images: one alone must not stop.
        all_reduce(figures, 'mean')
        entropy, loss = figures.tolist()
        finding = self.diagnose(
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
