# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest

from mmscfs.engine import scalar_log
from mmscfs.engine.scalar_log import SafeLocalVisBackend


@pytest.fixture
def warnings(monkeypatch):
    """The warnings of the run's log."""
    found = []
    monkeypatch.setattr(scalar_log, 'warn', found.append)
    return found


def full(*_):
    raise OSError(28, 'No space left on device')


def test_pictures_are_where_mmengine_puts_them(tmp_path, warnings):
    image = np.zeros((3, 5, 3), np.uint8)
    image[1, 2] = 10, 20, 30
    SafeLocalVisBackend(str(tmp_path)).add_image('views', image, 7)
    # OpenCV reads blue first.
    (found,) = (tmp_path / 'vis_image').iterdir()
    assert found.name == 'views_7.png'
    assert cv2.imread(str(found))[1, 2].tolist() == [30, 20, 10]
    assert not warnings


def test_a_full_disk_ends_no_run(tmp_path, monkeypatch, warnings):
    backend = SafeLocalVisBackend(str(tmp_path))
    backend.add_image('views', np.zeros((3, 5, 3), np.uint8), 1)
    monkeypatch.setattr(scalar_log, 'write_png', full)
    backend.add_image('views', np.zeros((3, 5, 3), np.uint8), 2)
    monkeypatch.setattr(
        'mmengine.visualization.LocalVisBackend._dump',
        lambda *_: full(),
    )
    backend.add_scalar('loss', 1.0, 2)
    assert [text.split(' was')[0] for text in warnings] == [
        'A picture',
        'A line of scalars',
    ]
    assert [p.name for p in (tmp_path / 'vis_image').iterdir()] == [
        'views_1.png'
    ]
