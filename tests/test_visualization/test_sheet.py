# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest

from mmscfs.visualization.sheet import Sheet, shorten, text_width, write_png


@pytest.mark.parametrize('name', ['bad\udcff', 'line\nbreak', 'bell\x07\x85'])
def test_names_of_any_bytes_can_be_drawn(name):
    width = text_width(name, 12)
    assert width == text_width(name.replace('\n', '\ufffd'), 12) > 0
    assert len(shorten(name, 1000, 12)) == len(name)
    sheet = Sheet(200, 60)
    sheet.text(4, 4, name)
    dark = np.argwhere(sheet.render().min(axis=2) < 128)
    assert len(dark) > 20
    assert dark[:, 0].max() < 30  # one line


@pytest.mark.parametrize(
    ('height', 'width', 'box'),
    [
        (1000, 1, (59, 10, 60, 110)),
        (1, 1000, (10, 59, 110, 60)),
        (4000, 50, (59, 10, 60, 110)),
        (50, 25, (35, 10, 85, 110)),
        (300, 200, (26, 10, 93, 110)),
    ],
)
def test_an_image_lies_in_the_middle_of_its_cell(height, width, box):
    """The cell has 100 px."""
    sheet = Sheet(120, 120)
    image = np.full((height, width, 3), (10, 20, 30), np.uint8)
    assert sheet.image(image, 10, 10, 100, 100) == box
    left, top, right, bottom = box
    expected = np.full((120, 120, 3), 255)
    expected[top:bottom, left:right] = 10, 20, 30
    assert np.array_equal(sheet.render(), expected)


def test_labels_of_the_same_box_take_other_corners():
    sheet = Sheet(200, 200)
    for _ in range(4):
        sheet.outline((0, 0, 200, 200), (0.1, 0.1, 0.9, 0.9), 'red', 'A')
    assert len(set(sheet.labels)) == 4


def test_a_picture_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / 'a.png'
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write_png(image, path)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], image)
    with pytest.raises(OSError, match='nowhere'):
        write_png(image, tmp_path / 'nowhere' / 'a.png')
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']
