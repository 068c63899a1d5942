# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest

from mmscfs.visualization.sheet import Cell, Mark, draw_sheet, write_png


@pytest.mark.parametrize('name', ['bad\udcff', 'line\nbreak', 'n' * 500])
def test_names_of_any_kind_are_one_line_in_the_sheet(name):
    cell = Cell((60, 60), np.full((6, 6, 3), 255, np.uint8), '', name, [name])
    picture = draw_sheet([[cell]], name[:40], name[:40])
    dark = np.argwhere(picture.min(axis=2) < 128)[:, 0]
    # Of a title, a subtitle, and what stands above and below the image.
    for first, last in ((14, 41), (41, 68), (68, 90), (150, 166)):
        assert ((dark >= first) & (dark < last)).sum() > 10
    assert not ((dark >= 90) & (dark < 150)).any()
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert edge.min() == 255


@pytest.mark.parametrize(
    ('height', 'width', 'box'),
    [
        (1000, 1, (49, 0, 50, 100)),
        (1, 1000, (0, 49, 100, 50)),
        (50, 25, (25, 0, 75, 100)),
        (300, 200, (16, 0, 83, 100)),
    ],
)
def test_an_image_lies_in_the_middle_of_its_cell(height, width, box):
    """Of 100 px, beside one as high, from (16, 68) and (128, 68) on."""
    ink = 10, 20, 30
    image = np.full((height, width, 3), ink, np.uint8)
    square = np.full((100, 100, 3), ink, np.uint8)
    picture = draw_sheet([[Cell((100, 100), x) for x in (square, image)]])
    left, top, right, bottom = box
    expected = np.full((184, 244, 3), 255)
    expected[68:168, 16:116] = ink
    expected[68 + top : 68 + bottom, 128 + left : 128 + right] = ink
    assert np.array_equal(picture, expected)


def test_frames_of_the_same_box_show_both_labels():
    marks = [
        Mark((0.1, 0.1, 0.9, 0.9), color, 'A') for color in ('#f00', '#00f')
    ]
    image = np.zeros((100, 100, 3), np.uint8)
    picture = draw_sheet([[Cell((200, 200), image, marks=marks)]])
    inside = picture[68 + 24 : 68 + 176, 16 + 24 : 16 + 176].astype(int)
    for channel in (0, 2):  # the ground of a label
        assert (inside[..., channel] - inside[..., 1] > 200).sum() > 50


def test_a_picture_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / 'a.png'
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write_png(image, path)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], image)
    with pytest.raises(OSError, match='nowhere'):
        write_png(image, tmp_path / 'nowhere' / 'a.png')
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']
