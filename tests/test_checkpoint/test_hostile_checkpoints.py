# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pickle
import resource

import fuzz_annotations
import fuzz_checkpoints
import pytest
import torch
from hostile_checkpoints import BAD, STATE, TRAPS, Evaluated, Restored, Trap
from mmengine.runner import CheckpointLoader
from torch import nn

from mmscfs.checkpoint import load_backbone, parse_config, read_checkpoint

READERS = dict(
    ours=read_checkpoint,
    # Behind load_from, resume and init_cfg of every OpenMMLab project.
    mmengine=lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    backbone=lambda path: load_backbone(nn.Linear(2, 2), path),
)


@pytest.mark.parametrize('trap', [Trap, Evaluated, Restored])
def test_the_traps_are_real(tmp_path, trap):
    pickle.loads(pickle.dumps(trap(tmp_path / 'marker')))
    assert (tmp_path / 'marker').is_dir()


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('name', TRAPS)
def test_code_is_refused_without_running_it(
    tmp_path, name, reader, monkeypatch
):
    # Only a call that says nothing else heeds this.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path, marker = tmp_path / name, tmp_path / 'marker'
    path.write_bytes(TRAPS[name](marker))
    with pytest.raises(ValueError, match=rf'(refused|damaged|{name}).*{name}'):
        READERS[reader](path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        # It is compressed, unlike tensors.
        ('script.pth', 'its parts claim more bytes than it has'),
        ('bomb.pth', 'its parts claim more bytes than it has'),
        ('flipped.pth', "part '.*data/0' has another checksum"),
        ('expanded.pth', r'shape \(1000000000000,\) is not stored in full'),
        ('sparse.pth', r'shape \(1000000000000,\) is not stored in full'),
        ('bytes.pth', 'it holds a bytearray'),
        ('bytes_old.pth', 'it holds a bytearray'),
        ('list.pth', 'holds a list, not tensors by name'),
        ('deep.pth', ''),
    ],
)
def test_bad_files_are_refused_within_little_memory(tmp_path, name, reason):
    path = tmp_path / name
    path.write_bytes(BAD[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f'{name}.*{reason}'):
        read_checkpoint(path)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200 * 1024  # KB


def test_undamaged_files_pass(tmp_path):
    torch.save(STATE, tmp_path / 'good.pth')
    loaded = READERS['mmengine'](tmp_path / 'good.pth')
    assert torch.equal(loaded['conv1.weight'], STATE['conv1.weight'])


def test_mmengine_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(STATE, tmp_path / 'good.pth')
    assert 'conv1.weight' in READERS['mmengine']('~/good.pth')
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        READERS['mmengine']('~/nowhere.pth')


@pytest.mark.parametrize(
    'text',
    [
        'x = ' + '[' * 5000 + ']' * 5000,
        'x = ' + '-' * 100_000 + '1',
        'x = {[]: 1}',
        'x = dict(1)',
        'x = \0',
        'x = ' + '1 + ' * 10**6 + '1',
        'x =',
    ],
)
def test_config_texts_that_no_one_dumped_are_refused(text):
    with pytest.raises(ValueError, match='no dumped config'):
        parse_config(text)


def test_config_texts_are_not_run(tmp_path):
    marker = tmp_path / 'marker'
    text = f'import os\nx = os.mkdir({str(marker)!r})\nos.mkdir(x)\ny = 1\n'
    assert parse_config(text)['y'] == 1
    assert not marker.exists()


@pytest.mark.parametrize('fuzzer', [fuzz_checkpoints, fuzz_annotations])
def test_damaged_files_are_read_or_refused_by_name(tmp_path, fuzzer):
    """The fuzzers themselves run for minutes."""
    outcomes = fuzzer.run(tmp_path / 'cases', cases=150)
    assert outcomes['ValueError'] > 50
    assert outcomes['read'] > 5
