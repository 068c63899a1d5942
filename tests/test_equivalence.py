# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One process and two train alike, through the runner and gloo."""

import equivalence
import pytest
import torch

PARTS = ('losses', 'weights', 'teacher', 'memory', 'buffers', 'optimizer')


# Four batches an epoch; the prototypes move in the second.
@pytest.mark.parametrize(
    ('method', 'accumulate'),
    [('scfs', 2), ('co2', 1)],
)
def test_two_processes_train_as_one(method, accumulate):
    (row,) = equivalence.measure(method, accumulate, [2], 8)
    assert row['moved'] > 0.01
    for part in PARTS:
        assert row[part] < 1e-9, part
    assert row['between'] == 0


@pytest.mark.parametrize(('difference', 'code'), [(1e-12, 0), (1e-6, 1)])
def test_more_than_rounding_fails(difference, code, capsys, monkeypatch):
    row = dict(method='dino', accumulate=1, processes=2, losses=difference)
    monkeypatch.setattr(equivalence, 'RECIPES', ['dino'])
    monkeypatch.setattr(
        equivalence, 'measure', lambda *_: [row | dict(moved=0.1)]
    )
    for name in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'):  # set by it
        monkeypatch.setenv(name, '')
    assert equivalence.main() == code
    printed = capsys.readouterr().out
    assert f'    losses     {difference:.1e}\n' in printed


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
