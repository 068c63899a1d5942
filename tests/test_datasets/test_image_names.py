# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What is said of images that a list names otherwise than they are there."""

import unicodedata

import pytest

from mmscfs.datasets.image_names import check_names

COMPOSED, APART = (
    unicodedata.normalize(form, 'Bär.jpg') for form in ('NFC', 'NFD')
)


@pytest.mark.parametrize(
    ('name', 'there', 'text'),
    [
        (
            '0.jpg',
            'sub/0.jpg',
            "('sub/0.jpg' is there: write that name, 'sub/0.jpg', or make "
            "'{root}/images/sub' the folder)",
        ),
        (
            'images/0.jpg',
            '0.jpg',
            "('0.jpg' is there: write that name, '0.jpg', or make '{root}' "
            'the folder)',
        ),
        ('a/0.jpg', 'b/0.jpg', "('b/0.jpg' is there: write that name, 'b/0."),
        (
            'C:\\me\\0.jpg',
            'sub/0.jpg',
            "('sub/0.jpg' is there, and this is a path of Windows: write the ",
        ),
        (
            '../0.jpg',
            '0.jpg',
            "'{root}/images' ('0.jpg' is there: write that name, '0.jpg'): "
            'write it from that folder on',
        ),
        ('/media/0.jpg', '0.jpg', "is there: write that name, '0.jpg'): "),
        (
            COMPOSED,
            APART,
            f'({APART!r} is there, which looks the same but has '
            "Unicode's form NFD: write the names",
        ),
        (APART, COMPOSED, "Python's unicodedata.normalize('NFC', name))"),
        ('0.jpg', '0.JPG', "images/0.jpg' ('0.JPG' is there): correct the"),
        ('0.jpg', '0.png', "images/0.jpg' ('0.png' is there): correct the"),
        # Another image, and a link that leads nowhere.
        ('0.jpg', 'sub/0.png', "images/0.jpg': correct the folder"),
        ('0.jpg', None, "images/0.jpg': correct the folder"),
    ],
)
def test_where_a_missing_image_is(tmp_path, name, there, text):
    folder = tmp_path / 'images'
    folder.mkdir()
    if there is None:
        (folder / '0.jpg').symlink_to('nowhere.jpg')
    else:
        (folder / there).parent.mkdir(exist_ok=True)
        (folder / there).touch()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        check_names([name], 'my.json', str(folder), '--images images')
    assert text.format(root=tmp_path) in str(caught.value)
    if there is not None:
        check_names([there], 'my.json', str(folder), '--images images')
