# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger

from mmscfs.engine.resume import SafeLocalVisBackend
from mmscfs.engine.resume.files import AtomicBackend


def test_lines_and_pictures_are_where_mmengine_puts_them(tmp_path):
    image = np.zeros((3, 5, 3), np.uint8)
    image[1, 2] = 10, 20, 30
    backend = SafeLocalVisBackend(str(tmp_path))
    backend.add_image('views', image, 7)
    backend.add_scalar('loss', 1.5, 2)
    backend.add_scalars(dict(lr=0.5), 3)
    # OpenCV reads blue first.
    (found,) = (tmp_path / 'vis_image').iterdir()
    assert found.name == 'views_7.png'
    assert cv2.imread(str(found))[1, 2].tolist() == [30, 20, 10]
    lines = (tmp_path / 'scalars.json').read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        dict(loss=1.5, step=2),
        dict(lr=0.5, step=3),
    ]


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
