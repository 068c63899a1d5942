# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
import multiprocessing
import signal
import socket
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmscfs.engine.resume import SafeLocalVisBackend
from mmscfs.engine.resume.files import AtomicBackend, lock_work_dir


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        MMLogger.get_current_instance(),
        'log',
        lambda level, text: warnings.append((level, text)),
    )
    backend = SafeLocalVisBackend(str(tmp_path))
    backend.add_scalar('loss', 2.0, 1)
    warnings.clear()
    # Every write to it fails with ENOSPC.
    (tmp_path / 'scalars.json').unlink()
    (tmp_path / 'scalars.json').symlink_to('/dev/full')
    backend.add_scalar('loss', 1.0, 2)
    backend.add_scalars(dict(loss=1.0), 2)
    assert [level for level, _ in warnings] == [logging.WARNING] * 2
    for (_, text), what in zip(
        warnings, ('A scalar', 'A line of scalars'), strict=True
    ):
        assert text.startswith(f'{what} was not written: ')
        assert 'No space left on device' in text


@pytest.mark.parametrize('name', ['new/folder/a.pth', 'a.pth'])
def test_a_removed_file_stays_until_it_is_outdated_for_good(
    tmp_path, name, monkeypatch
):
    monkeypatch.setattr(AtomicBackend, 'outdated', set())
    backend, path = AtomicBackend(), tmp_path / name
    backend.put(b'one', path)
    backend.remove(path)
    assert path.read_bytes() == b'one'
    assert backend.outdated == {path}
    # Another name of the same file, as in a folder that is named otherwise.
    monkeypatch.chdir(tmp_path)
    backend.put(b'two', Path(name))
    assert path.read_bytes() == b'two'
    assert backend.outdated == set()


def hold(folder, ready):
    """Lock a folder for as long as this process lives."""
    lock_work_dir(str(folder))
    ready.set()
    signal.pause()


def test_a_second_run_is_kept_out_while_the_first_lives(tmp_path):
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    first = context.Process(target=hold, args=(tmp_path, ready))
    first.start()
    assert ready.wait(60)
    holder = f'process {first.pid} on {socket.gethostname()}'
    with pytest.raises(ValueError, match=f'has not ended .{holder}'):
        lock_work_dir(str(tmp_path))
    first.kill()
    first.join()
    lock_work_dir(str(tmp_path))
    assert (tmp_path / '.lock').read_text().startswith('process ')
    lock_work_dir(str(tmp_path))  # the same process may start once more


def test_a_work_dir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match=r"'.*file/run' cannot be written"):
        lock_work_dir(str(tmp_path / 'file' / 'run'))
