# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..runner_access import unwrapped_model


@HOOKS.register_module()
class FrozenBackboneHook(Hook):
    """Prove that a linear probe leaves its backbone as it was.

    Checks the model before the training, and compares every parameter and
    buffer of the backbone with those at the start, kept on the CPU: after
    each epoch and after the training, before a checkpoint is saved.
    """

    def before_train(self, runner: Runner) -> None:
        """Check that the backbone is frozen, and remember it.

        Raises:
            ValueError: It would learn, or be in train mode.
        """
        model = unwrapped_model(runner).train()
        problems = [
            f'model.backbone.{name} requires a gradient'
            for name, value in model.backbone.named_parameters()
            if value.requires_grad
        ] + [
            f'{f"model.backbone.{name}".rstrip(".")} is in train mode'
            for name, module in model.backbone.named_modules()
            if module.training
        ]
        if problems:
            raise ValueError(
                f'model.type={type(model).__name__!r} does not freeze its '
                f'backbone: {problems[0]} (one of {len(problems)}); set '
                "model.type='LinearProbe', or to train the backbone remove "
                'FrozenBackboneHook (default_hooks.frozen_backbone)'
            )
        self._start = {
            key: value.detach().cpu().clone()
            for key, value in model.backbone.state_dict().items()
        }

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare the backbone with that at the start.

        Raises:
            RuntimeError: A tensor moved.
        """
        state = unwrapped_model(runner).backbone.state_dict()
        moved = [
            key
            for key, value in self._start.items()
            if not torch.equal(state[key].cpu(), value)
        ]
        if moved:
            raise RuntimeError(
                f'iteration {runner.iter}: {len(moved)} of {len(state)} '
                'tensors of the frozen backbone moved (e.g. model.backbone.'
                f'{moved[0]}), so this is not linear probing: something '
                'writes into them, a hook or the backbone itself'
            )

    after_train = after_train_epoch
