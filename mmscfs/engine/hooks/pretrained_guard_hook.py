# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import find_backbone, read_checkpoint
from mmscfs.checkpoint.pretrained import KEPT

from ..runner_access import unwrapped_model


@HOOKS.register_module()
class PretrainedGuardHook(Hook):
    """Check, before a run's first iteration, that it starts from weights.

    Some backbones overwrite or ignore what ``init_cfg`` loads. A run that is
    resumed is not checked: its weights have moved on.

    Args:
        checkpoint (str): The pre-training checkpoint.
        places (Sequence[str]): The modules that start from it, e.g.
            "backbone" and "roi_head.shared_head".
        network (str, optional): "teacher", "student" or None, as
            :func:`find_backbone` takes it. Defaults to None.
    """

    def __init__(
        self,
        checkpoint: str,
        places: Sequence[str],
        network: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.places = places
        self.network = network

    def before_train(self, runner: Runner) -> None:
        """Compare the model with the checkpoint.

        Raises:
            RuntimeError: A module does not hold the checkpoint's weights.
        """
        self.check(runner, resumed=runner.iter > 0)

    def before_test(self, runner: Runner) -> None:
        """Compare the model with the checkpoint.

        Raises:
            RuntimeError: As :meth:`before_train`.
        """
        self.check(runner)

    def check(self, runner: Runner, resumed: bool = False) -> None:
        """Compare the model with what was read, and free the memory."""
        found = KEPT.pop((self.checkpoint, self.network), None)
        if resumed:
            return
        if found is None:  # a config that was dumped by such a run
            found = find_backbone(
                read_checkpoint(self.checkpoint), self.network
            )
        for place in self.places:
            module = unwrapped_model(runner).get_submodule(place)
            differing = [
                key
                for key, value in module.state_dict().items()
                if key in found.state
                and value.shape == found.state[key].shape
                and not torch.equal(value.cpu(), found.state[key])
            ]
            if differing:
                raise RuntimeError(
                    f'model.{place} ({type(module).__name__}) does not hold '
                    f'the weights of {self.checkpoint}: {len(differing)} '
                    f'tensors differ (e.g. {differing[0]}), because its '
                    'init_weights ignores init_cfg. Export the backbone and '
                    'use its own loading option'
                )
