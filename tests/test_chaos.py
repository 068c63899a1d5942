# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import subprocess
import sys
from pathlib import Path

import chaos
import torch


def test_killed_run_ends_as_one_that_was_not(tmp_path):
    """In a separate process, as it forks."""
    words = ['--kills', '2', '--epochs', '1', '--workers', '0']
    done = subprocess.run(
        [sys.executable, chaos.__file__, *words],
        env=dict(os.environ, OMP_NUM_THREADS='1', TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '2 of 2 kills bit-equal at the end' in done.stdout
    assert not [*Path(tmp_path).iterdir()]


def test_what_differs_is_named(tmp_path):
    parts = dict(
        state_dict=dict(weight=torch.ones(3), same=torch.ones(2)),
        optimizer=dict(state={0: dict(step=1, zero=torch.tensor(0.0))}),
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
    parts['optimizer']['state'][0] = dict(step=1.0, zero=torch.tensor(-0.0))
    parts['meta']['more'] = None
    torch.save(parts, other)
    assert chaos.compare(one, other) == [
        'meta.more',
        'optimizer.state.0.step',
        'optimizer.state.0.zero',
        'state_dict.weight',
    ]
