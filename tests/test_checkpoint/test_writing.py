# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Files that are whole or absent, and whether one can be written."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from mmscfs.checkpoint import (
    check_writable,
    remove_unfinished,
    write_atomically,
)


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
    """Such as one that another program still fills."""
    folder = tmp_path / '.folder.tmp-12'
    folder.mkdir()
    (folder / 'a.tar').touch()
    (tmp_path / '.a.pth.tmp-12').touch()
    (tmp_path / '.link.tmp-12').symlink_to(folder)
    assert [path.name for path in remove_unfinished(tmp_path)] == [
        '.a.pth.tmp-12',
        '.link.tmp-12',
    ]
    assert (folder / 'a.tar').exists()
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ('function', 'old', 'error'),
    [
        ('fsync', b'old', OSError),
        ('fsync', None, KeyboardInterrupt),
        ('replace', b'old', KeyboardInterrupt),
    ],
)
def test_failed_write_leaves_the_old_file(
    tmp_path, monkeypatch, function, old, error
):
    def fail(*_):
        raise error('No space left')

    path = tmp_path / 'a.pth'
    if old:
        path.write_bytes(old)
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(error, match='No space left'):
        write_atomically(path, b'new')
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth'] * bool(old)
    if old:
        assert path.read_bytes() == old


def test_a_full_disk_is_named(small_disk):
    path = small_disk / 'a.pth'
    write_atomically(path, b'old')
    with pytest.raises(OSError, match='No space left') as error:
        write_atomically(path, bytes(2**20))
    free = shutil.disk_usage(small_disk).free
    for part in ('1,048,576 bytes', f'{free:,} are free', f"'{path}'"):
        assert part in str(error.value)
    assert error.value.errno == errno.ENOSPC
    assert [p.name for p in small_disk.iterdir()] == ['a.pth']
    assert path.read_bytes() == b'old'


def test_file_is_synchronized_before_it_gets_its_name(tmp_path, monkeypatch):
    path, events = tmp_path / 'a.pth', []
    fsync, replace = os.fsync, os.replace

    def record_fsync(number):
        events.append(('fsync', os.fstat(number).st_size, path.exists()))
        fsync(number)

    def record_replace(source, target):
        events.append(('replace', source.parent, target))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', record_fsync)
    monkeypatch.setattr(os, 'replace', record_replace)
    write_atomically(str(path), b'12345')
    assert events[:2] == [('fsync', 5, False), ('replace', tmp_path, path)]
    # Then its folder, for the name.
    assert [(name, exists) for name, _, exists in events[2:]] == [
        ('fsync', True)
    ]
    assert path.read_bytes() == b'12345'
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_and_a_folder_in_place(tmp_path):
    check_writable(tmp_path / 'a.json')
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match='gone.*folder does not exist; make it'):
        check_writable(tmp_path / 'gone' / 'a.json')
    with pytest.raises(OSError, match='is a folder; remove it'):
        check_writable(tmp_path)


def test_a_folder_that_takes_no_file(tmp_path, monkeypatch):
    """Root may write anywhere: the refusal is the system's word."""

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'touch', refuse)
    with pytest.raises(OSError, match='Permission denied; get') as error:
        check_writable(tmp_path / 'a.json')
    assert str(tmp_path) in str(error.value)
    assert 'ln -s' in str(error.value)
