# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.dist import get_world_size


def check_queue_length(length: int, batch: int) -> None:
    """Check that a queue of keys, as MoCo's, holds whole steps.

    Args:
        length (int): Number of keys in the queue.
        batch (int): Images in a batch of one process.

    Raises:
        ValueError: It does not.
    """
    processes = get_world_size()
    step = batch * processes
    if length % step:
        raise ValueError(
            f'model.queue_len={length} must be a multiple of the {step} '
            f'images of a step (train_dataloader.batch_size={batch} on each '
            f'of {processes} processes), which replace as many of its keys: '
            f'set it to {max(1, round(length / step)) * step}, or change '
            'the batch size; and keep drop_last=True'
        )
