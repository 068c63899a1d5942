# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One process and two train alike, through the runner and gloo."""

import importlib
from pathlib import Path

import pytest
import torch
from cpu_sync_batch_norm import WRAPPER

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
FIXED = {'method', 'accumulate', 'processes', 'moved'}
PARTS = {
    'losses',
    'weights',
    'teacher',
    'memory',
    'buffers',
    'optimiser',
    'between',
}


@pytest.fixture
def equivalence(monkeypatch):
    """Import tools/benchmarks/equivalence.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module('equivalence')


def rows(equivalence, *options):
    args = equivalence.parse_args(
        ['--json', '--processes', '2', '--batch', '8', '--epochs', '2']
        + [str(option) for option in options]
    )
    return equivalence.measure(args)


# Four batches an epoch; the prototypes move in the second.
@pytest.mark.parametrize(
    ('method', 'accumulate'),
    [('dino', 2), ('scfs', 1), ('scfs', 2), ('co2', 1), ('co2', 2)],
)
def test_two_processes_train_as_one(equivalence, method, accumulate):
    (row,) = rows(
        equivalence,
        *('--methods', method, '--accumulate', accumulate),
        *('--cfg-options', f'model_wrapper_cfg.type={WRAPPER}'),
    )
    assert row.keys() == FIXED | PARTS
    assert row['moved'] > 0.01
    for part in PARTS:
        assert row[part] < 1e-9, part
    assert row['between'] == 0


def test_plain_batch_norm_is_noticed(equivalence):
    """Which is what a CPU has without the tests' own."""
    (row,) = rows(equivalence, '--methods', 'dino', '--accumulate', 1)
    for part in PARTS:
        assert row[part] > 1e-6, part


def test_keys_are_put_in_the_order_of_the_images(equivalence):
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
        found = importlib.import_module('equivalence_runs').in_image_order(
            torch.stack([queue, queue]), processes, batch=6, steps=2
        )
        expected = torch.tensor([*range(12), 99, 98])
        assert torch.equal(found, torch.stack([expected, expected]))


@pytest.mark.parametrize(
    'options',
    [
        ['--batch', '6', '--processes', '4'],
        ['--batch', '4', '--processes', '4'],
        ['--processes', '1'],
        ['--methods', 'byol'],
    ],
)
def test_bad_options_exit_with_2(equivalence, options):
    with pytest.raises(SystemExit) as error:
        equivalence.parse_args(options)
    assert error.value.code == 2
