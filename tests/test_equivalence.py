# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One process and two train alike, through the runner and gloo."""

import equivalence
import torch

PARTS = ('losses', 'weights', 'teacher', 'memory', 'buffers', 'optimizer')


PLAIN = 'CPUDistributedDataParallel'  # what several on a CPU have


def assert_same(row):
    assert row['moved'] > 0.01
    for part in PARTS:
        assert row[part] < 1e-9, part
    assert row['between'] == 0


def test_two_processes_train_as_one():
    """Four batches an epoch; the prototypes move in the second.

    The comparison sees what plain batch norm changes.
    """
    wrappers = 'SynchronizedOnCPU', PLAIN
    row, plain = equivalence.measure('scfs', 2, [2], 8, wrappers)
    assert_same(row)
    for part in (*PARTS, 'between'):
        assert plain[part] > 1e-6, part


def test_two_processes_keep_one_queue():
    (row,) = equivalence.measure('co2', 1, [2], 8)
    assert_same(row)


def test_keys_are_put_in_the_order_of_the_images():
    """Two batches of six images, which 2 and 3 processes deal out."""
    for processes in (2, 3):
        batches = [torch.arange(6), torch.arange(6, 12)]
        queue = torch.cat(
            [
                batch[rank::processes]
                for batch in batches
                for rank in range(processes)
            ]
        )
        queue = torch.cat([queue, torch.tensor([99, 98])])  # not filled yet
        found = equivalence.in_image_order(
            torch.stack([queue, queue]), processes, batch=6, steps=2
        )
        expected = torch.tensor([*range(12), 99, 98])
        assert torch.equal(found, torch.stack([expected, expected]))
