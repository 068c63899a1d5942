# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import (
    TENSOR_PARTS,
    drop_code,
    restore_histories,
    to_plain,
)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save checkpoints that load with ``weights_only=True``, and resume them.

    See :func:`to_plain` for the reason.
    """

    # After the hooks that add to a checkpoint.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn what is no tensor and no plain type into one.

        The number of processes is noted too: with the config's batch size it
        tells how many images a step had.
        """
        checkpoint['meta']['world_size'] = get_world_size()
        for key, value in checkpoint.items():
            if key not in TENSOR_PARTS:
                checkpoint[key] = to_plain(value)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the log's histories before the runner resumes its log.

        What came from an address, past our loader, loses its code here.
        """
        drop_code(checkpoint)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = restore_histories(
                checkpoint['message_hub']
            )
