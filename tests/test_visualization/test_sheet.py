# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np
import pytest

from mmscfs.visualization.sheet import Sheet, shorten, text_width


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
    ('height', 'width', 'scale'),
    [
        (1000, 1, 0.1),
        (1, 1000, 0.1),
        (4000, 50, 1 / 40),
        (50, 25, 2),
        (300, 200, 1 / 3),
    ],
)
def test_scale_of_an_image_in_its_cell(height, width, scale):
    """100 px; a narrow image is wider there than its scale has it."""
    sheet = Sheet(120, 120)
    image = np.zeros((height, width, 3), np.uint8)
    assert sheet.image(image, 10, 10, 100, 100)[2] == pytest.approx(
        scale, rel=0.01
    )
