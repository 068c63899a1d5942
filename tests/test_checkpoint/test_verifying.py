# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import pickle
from pathlib import Path

import pytest
import torch

from mmscfs.checkpoint import (
    NoRunError,
    check_archive,
    read_saved_run,
    remove_unfinished,
    write_atomically,
)


def save(path, iteration=3, **changes):
    """A checkpoint with what mmengine resumes from."""
    parts = dict(
        meta=dict(epoch=1, iter=iteration),
        state_dict=dict(weight=torch.arange(1000.0)),
        optimizer=dict(state={}),
        message_hub=dict(log_scalars={}),
    )
    parts.update(changes)
    parts = {name: part for name, part in parts.items() if part is not None}
    torch.save(parts, path)
    return path


def test_whole_checkpoint(tmp_path):
    path = save(tmp_path / 'a.pth')
    check_archive(path)
    assert read_saved_run(path).iteration == 3


def test_one_flipped_bit_that_torch_does_not_see(tmp_path):
    path = save(tmp_path / 'a.pth')
    content = bytearray(path.read_bytes())
    # Amid the tensor's bytes: the number 500.0 as it is stored.
    at = content.index(torch.tensor([500.0]).numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    weight = torch.load(path, weights_only=True)['state_dict']['weight']
    assert not torch.equal(weight, torch.arange(1000.0))
    with pytest.raises(ValueError, match=r"'.*a\.pth' is damaged .*data/0"):
        check_archive(path)


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_torn_checkpoint(share, tmp_path):
    path = save(tmp_path / 'a.pth')
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for check in (
        (check_archive, read_saved_run) if share else (read_saved_run,)
    ):
        with pytest.raises(ValueError, match=r"a\.pth' is damaged"):
            check(path)


def test_every_flipped_byte_is_seen(tmp_path):
    """By one check or the other, wherever it lies."""
    path = save(tmp_path / 'a.pth', state_dict=dict(weight=torch.ones(3)))
    content = path.read_bytes()
    unseen = []
    for at in range(0, len(content), 7):
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        )
        try:
            check_archive(path)
            read_saved_run(path)
        except ValueError:
            continue
        unseen.append(at)
    # What is left are the paddings, dates and attributes of the archive:
    # what is read is the same.
    for at in unseen:
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        )
        read = torch.load(path, weights_only=True)
        assert read['meta'] == dict(epoch=1, iter=3)
        assert read['state_dict']['weight'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ('changes', 'missing'),
    [
        (dict(optimizer=None), 'no optimizer'),
        (dict(optimizer=None, message_hub=None), 'optimizer, message_hub'),
        (dict(meta=dict(epoch=1)), r"no meta\['iter'\]"),
        (dict(meta='text'), r"no meta\['iter'\]"),
    ],
)
def test_weights_alone_are_no_run(changes, missing, tmp_path):
    path = save(tmp_path / 'a.pth', **changes)
    with pytest.raises(NoRunError, match=f'{missing}.*--pretrained'):
        read_saved_run(path)


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (dict(optimizer=3), 'its optimizer cannot'),
        (dict(state_dict=[1]), 'its state_dict cannot'),
        (dict(message_hub={}), r"its message_hub\['log_scalars'\] cannot"),
        (
            dict(message_hub=dict(log_scalars={}, runtime_info=3)),
            r"its message_hub\['runtime_info'\] cannot",
        ),
        (dict(meta=dict(iter=3)), r"its meta\['epoch'\] cannot"),
        (
            dict(meta=dict(iter=True, epoch=-5), optimizer='text'),
            r"its optimizer, meta\['iter'\], meta\['epoch'\] cannot",
        ),
    ],
)
def test_parts_of_another_kind_are_named(changes, named, tmp_path):
    path = save(tmp_path / 'a.pth', **changes)
    with pytest.raises(ValueError, match=rf"a\.pth' is damaged.*{named}"):
        read_saved_run(path)


@pytest.mark.parametrize(
    ('meta', 'seed', 'cfg'),
    [
        (dict(seed=7, cfg='lr = 1\n'), 7, 'lr = 1\n'),
        (dict(seed=None, cfg=None), None, ''),
        (dict(seed='7', cfg=torch.ones(2)), None, ''),
        ({}, None, ''),
    ],
)
def test_seed_and_config(meta, seed, cfg, tmp_path):
    path = save(tmp_path / 'a.pth', meta=dict(meta, iter=5, epoch=2))
    assert read_saved_run(path) == (5, seed, cfg)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / 'a.pth', tmp_path / 'trace'
    torch.save(dict(meta=dict(iter=Evil(trace))), path)
    with pytest.raises(ValueError, match='refused checkpoint'):
        read_saved_run(path)
    path.write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(ValueError, match=r"a\.pth'"):
        read_saved_run(path)
    assert not trace.exists()


def test_old_format_of_torch(tmp_path):
    path = tmp_path / 'a.pth'
    parts = torch.load(save(path), weights_only=True)
    torch.save(parts, path, _use_new_zipfile_serialization=False)
    assert read_saved_run(path).iteration == 3
    check_archive(path)


def test_unfinished_files_are_removed_and_no_others(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_atomically(path, b'old')

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Neither renamed nor cleaned up, as after SIGKILL.
        patch.setattr(os, 'replace', killed)
        patch.setattr(Path, 'unlink', lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b'new')
    assert path.read_bytes() == b'old'
    (left,) = remove_unfinished(tmp_path)
    assert left.name == f'.a.pth.tmp-{os.getpid()}'
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']


def test_unfinished_folders_stay(tmp_path):
    """Such as those of shards that are still being packed."""
    folder = tmp_path / '.shards.tmp-12'
    folder.mkdir()
    (folder / 'shard-00000.tar').touch()
    (tmp_path / '.a.pth.tmp-12').touch()
    (tmp_path / '.link.tmp-12').symlink_to(folder)
    assert [path.name for path in remove_unfinished(tmp_path)] == [
        '.a.pth.tmp-12',
        '.link.tmp-12',
    ]
    assert (folder / 'shard-00000.tar').exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_failed_flush_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_atomically(path, b'old')

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_atomically(path, b'new')
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']
    assert path.read_bytes() == b'old'
