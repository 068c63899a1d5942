# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHAOS = Path(__file__).resolve().parents[2] / 'tools/benchmarks/chaos.py'


@pytest.fixture
def chaos(monkeypatch):
    monkeypatch.syspath_prepend(str(CHAOS.parent))
    return importlib.import_module('chaos')


@pytest.mark.parametrize(('number', 'kills'), [('KILL', '2'), ('TERM', '1')])
def test_killed_run_ends_as_one_that_was_not(number, kills, tmp_path):
    """In a process of its own, as it forks."""
    done = subprocess.run(
        [sys.executable, CHAOS, '--kills', kills, '--epochs', '1']
        + ['--workers', '0', '--signal', number, '--work-dir', tmp_path / 'w'],
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'{kills} of {kills} kills bit-equal at the end' in done.stdout


def test_what_differs_is_named(chaos, tmp_path):
    parts = dict(
        state_dict=dict(weight=torch.ones(3), same=torch.ones(2)),
        optimizer=dict(state={0: dict(step=1)}),
        message_hub=dict(log_scalars={'train/time': torch.ones(1)}),
        meta=dict(iter=4, time='now', values=[float('nan'), 0.0]),
    )
    one, other = tmp_path / 'one.pth', tmp_path / 'other.pth'
    torch.save(parts, one)
    parts['meta']['time'] = 'later'
    parts['message_hub']['log_scalars']['train/time'] *= 2
    torch.save(parts, other)
    assert chaos.compare(one, other) == []
    parts['state_dict']['weight'][1] = torch.nextafter(
        torch.tensor(1.0), torch.tensor(2.0)
    )
    parts['optimizer']['state'][0]['step'] = 1.0
    parts['meta']['more'] = None
    torch.save(parts, other)
    assert chaos.compare(one, other) == [
        'meta.more',
        'optimizer.state.0.step',
        'state_dict.weight',
    ]


def test_sign_of_zero_counts(chaos, tmp_path):
    paths = [tmp_path / name for name in ('one.pth', 'other.pth')]
    for path, zero in zip(paths, (0.0, -0.0), strict=True):
        torch.save(dict(weight=torch.tensor(zero)), path)
    assert chaos.compare(*paths) == ['weight']


def test_folder_of_something_else_is_not_replaced(chaos, tmp_path, capsys):
    (tmp_path / 'thesis.tex').touch()
    assert chaos.main(['--work-dir', str(tmp_path)]) == 2
    assert 'holds something else' in capsys.readouterr().err
    assert (tmp_path / 'thesis.tex').exists()


def test_bad_options(chaos, capsys):
    with pytest.raises(SystemExit) as error:
        chaos.parse_args(['--kills', '0'])
    assert error.value.code == 2
    assert "'0' is not a whole number from 1" in capsys.readouterr().err
