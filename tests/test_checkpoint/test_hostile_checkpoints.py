# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import pickle
import resource

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_checkpoints import (
    BAD,
    STATE,
    TRAPS,
    Evaluated,
    Restored,
    Trap,
    repacked,
    saved,
)
from mmengine.runner import CheckpointLoader
from torch import nn

from mmscfs.checkpoint import (
    check_archive,
    check_pickle,
    load_backbone,
    parse_config,
    read_checkpoint,
)
from mmscfs.engine.resume.chooser import check_run

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
        ('quantized.pth', r'shape \(2,\) is not .* or quantized'),
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


@pytest.mark.parametrize('read', [check_archive, check_pickle, check_run])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe.pth')
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint '.*pipe\.pth'"
    ):
        read(tmp_path / 'pipe.pth')


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
        'x = dict(1)',
        'x = \0',
        'x = ' + '1 + ' * 10**6 + '1',
    ],
)
def test_config_texts_that_no_one_dumped_are_refused(text):
    with pytest.raises(ValueError, match='not a dumped config'):
        parse_config(text)


def test_config_texts_are_not_run(tmp_path):
    marker = tmp_path / 'marker'
    text = f'import os\nx = os.mkdir({str(marker)!r})\nos.mkdir(x)\ny = 1\n'
    assert parse_config(text)['y'] == 1
    assert not marker.exists()


def damaged(content, rng):
    """Return a content with a bit flipped, a part cut out, or torn off."""
    data, at = bytearray(content), rng.integers(len(content))
    kind = rng.integers(4)
    if kind < 2:
        data[at] ^= 1 << rng.integers(8)
    elif kind == 2:
        data[at : at + rng.integers(1, 64)] = b'\xff\xff\xff\x7f'
    else:
        del data[at:]
    return bytes(data)


@pytest.mark.parametrize('form', ['whole', 'part', 'old', 'safetensors'])
def test_damaged_files_are_read_or_refused_by_name(tmp_path, form):
    """A damaged part has its checksum: the unpickler sees the damage."""
    rng = np.random.default_rng(0)
    content = dict(
        state_dict=STATE,
        meta=dict(cfg='a = 1', epoch=3),
        optimizer=dict(param_groups=[dict(lr=0.1, betas=(0.9, 0.99))]),
    )
    path = tmp_path / f'case.{"safetensors" if form[0] == "s" else "pth"}'
    good = saved(content, _use_new_zipfile_serialization=form != 'old')
    if form == 'safetensors':
        good = safetensors.torch.save(STATE)
    refused = 0
    for _ in range(60):
        if form == 'part':
            bad = repacked(
                good,
                lambda name, part: (
                    damaged(part, rng) if name.endswith('.pkl') else part
                ),
            )
        else:
            bad = damaged(good, rng)
        path.write_bytes(bad)
        message = ''
        try:
            read_checkpoint(path)
        except ValueError as error:
            message = str(error)
        assert not message or path.name in message
        refused += bool(message)
    assert refused > 15
