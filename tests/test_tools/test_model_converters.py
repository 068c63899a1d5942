# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/model_converters/export_backbone.py."""

import os

import pytest
import torch
from commands import load_tool
from mmengine.registry import MODELS

from mmscfs.checkpoint import SUFFIXES, read_checkpoint

tool = load_tool('model_converters/export_backbone')


def run(*words):
    return tool.main([str(word) for word in words])


def files(folder):
    """Return {relative path: bytes} of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture
def model(scfs_cfg):
    """A small SCFS whose teacher and student differ."""
    model = MODELS.build(dict(scfs_cfg, _scope_='mmpretrain'))
    model.init_weights()
    for value in model.teacher.parameters():
        value.data.add_(0.25)
    return model


@pytest.fixture
def checkpoint(model, tmp_path):
    """Its raw checkpoint, alone in a folder."""
    path = tmp_path / 'epoch_1.pth'
    meta = dict(cfg='data_preprocessor = dict(mean=[1], std=[2])\n')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture
def bottlenecks(tmp_path):
    """A narrow ResNet-50 in the names of the DINO release."""
    cfg = dict(type='mmdet.ResNet', depth=50, stem_channels=4, base_channels=4)
    state = MODELS.build(cfg).state_dict()
    path = tmp_path / 'dino.pth'
    torch.save(
        dict(
            student={f'module.backbone.{k}': v + 1 for k, v in state.items()},
            teacher={f'module.backbone.{k}': v for k, v in state.items()},
            epoch=100,
        ),
        path,
    )
    return path, state


@pytest.mark.parametrize(
    ('network', 'suffix'), [('teacher', '.pth'), ('student', '.safetensors')]
)
def test_exports_for_openmmlab(
    model, checkpoint, tmp_path, capsys, network, suffix
):
    out = tmp_path / f'backbone{suffix}'
    assert run(checkpoint, out, '--network', network) == 0
    source = model.teacher if network == 'teacher' else model
    wanted = source.backbone.state_dict()
    written = read_checkpoint(out)
    assert written['state_dict'].keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(written['state_dict'][key], value)
    assert written['meta']['source'] == 'epoch_1.pth'
    assert written['meta']['network'] == network
    assert written['meta']['cfg'].startswith('data_preprocessor')
    size = f'{out.stat().st_size / 1e6:.1f} MB'
    assert capsys.readouterr().out == (
        f'{out}: openmmlab backbone from mmscfs, {network}, 120 tensors, '
        f'{size}\n'
    )
    assert set(files(tmp_path)) == {'epoch_1.pth', out.name}


def test_imports_a_release_and_exports_it_again(bottlenecks, tmp_path):
    source, state = bottlenecks
    out, again = tmp_path / 'r50.safetensors', tmp_path / 'again.pth'
    assert run(source, out) == 0
    assert run(out, again, '--format', 'torchvision') == 0
    written = torch.load(again, weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)


def refused(capsys, folder, *words):
    """Run, check that nothing was written, return the one line of error."""
    before = files(folder)
    assert run(*words) == 2
    assert files(folder) == before
    text = capsys.readouterr()
    assert text.out == ''
    assert text.err.startswith('error: ')
    assert text.err.count('\n') == 1
    return text.err


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ([], ''),
        (['--format', 'torchvision'], 'models of torchvision begin with 64'),
    ],
)
def test_a_narrow_resnet_is_told(checkpoint, tmp_path, capsys, options, words):
    assert run(checkpoint, tmp_path / 'narrow.pth', *options) == 0
    out = capsys.readouterr().out
    assert ('note: ' in out) == bool(words)
    assert words in out


def test_existing_file_needs_overwrite(checkpoint, tmp_path, capsys):
    out = tmp_path / 'backbone.pth'
    out.write_bytes(b'precious')
    text = refused(capsys, tmp_path, checkpoint, out)
    assert f'OUT {out} exists' in text
    assert '--overwrite' in text
    assert run(checkpoint, out, '--overwrite') == 0
    assert len(read_checkpoint(out)['state_dict']) == 120


def test_the_checkpoint_itself_is_never_replaced(checkpoint, tmp_path, capsys):
    link = tmp_path / 'link.pth'
    link.symlink_to(checkpoint)
    for out in (checkpoint, link):
        text = refused(capsys, tmp_path, checkpoint, out, '--overwrite')
        assert 'is the checkpoint itself' in text


@pytest.mark.parametrize(
    ('out', 'options', 'words'),
    [
        ('b.bin', [], "no format has the suffix '.bin'"),
        ('b.pth', ['--format', 'detectron2'], "written as .pkl, not '.pth'"),
        ('nowhere/b.pth', [], 'the folder does not exist'),
        ('folder.pth', ['--overwrite'], 'is a folder'),
    ],
)
def test_wrong_out(checkpoint, tmp_path, capsys, out, options, words):
    (tmp_path / 'folder.pth').mkdir()
    text = refused(capsys, tmp_path, checkpoint, tmp_path / out, *options)
    assert words in text


@pytest.mark.parametrize(
    ('content', 'options', 'words'),
    [
        (b'not a checkpoint', [], 'is damaged'),
        (
            {'stages.0.weight': torch.ones(2, 2)},
            ['--format', 'timm'],
            'neither a ResNet nor a vision transformer',
        ),
    ],
)
def test_wrong_checkpoint(tmp_path, capsys, content, options, words):
    source, out = tmp_path / 'given.pth', tmp_path / 'out.pth'
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        torch.save(content, source)
    out.write_bytes(b'precious')
    text = refused(capsys, tmp_path, source, out, *options, '--overwrite')
    assert words in text
    assert str(source) in text


def test_formats_are_those_of_the_package():
    assert set(tool.FORMATS) == set(SUFFIXES)


@pytest.mark.parametrize(
    ('error', 'code', 'message'),
    [
        (OSError(28, 'No space left'), 1, 'error: cannot write '),
        (KeyboardInterrupt(), 130, 'is unchanged'),
    ],
)
def test_a_failure_keeps_the_old_file(
    checkpoint, tmp_path, capsys, monkeypatch, error, code, message
):
    def fail(_):
        raise error

    out = tmp_path / 'backbone.pth'
    out.write_bytes(b'precious')
    before = files(tmp_path)
    monkeypatch.setattr(os, 'fsync', fail)
    assert run(checkpoint, out, '--overwrite') == code
    assert message in capsys.readouterr().err
    assert files(tmp_path) == before
