# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import sys
import tempfile

import chaos
import torch


def test_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch, capsys):
    """At a moment, while it saves, and by a signal that it answers."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(sys, 'path', [*sys.path])  # it adds the tools
    words = ['--kills', '3', '--epochs', '1', '--workers', '0']
    assert chaos.main([*words, '--signal', 'KILL', 'KILL', 'TERM']) == 0
    assert '3 of 3 kills bit-equal at the end' in capsys.readouterr().out
    assert not [*tmp_path.iterdir()]


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
