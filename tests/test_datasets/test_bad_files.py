# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every image of bad_files.py is read rightly, or refused with its reason."""

import shutil
import signal

import numpy as np
import pytest
from bad_files import (
    CASES,
    encoded,
    jpeg,
    picture,
    sized_jpeg,
)

from mmscfs.datasets import ImageFiles, LoadImage
from mmscfs.datasets.transforms.loading import (
    EncodedImage,
    UnreadableImageError,
)

SECONDS = 10  # for each, on a busy machine
GOOD = [case for case in CASES if case.image is not None]
BAD = [case for case in CASES if case.image is None]
VIEWS = [
    dict(type='LoadImage'),
    dict(type='MultiCrop', global_size=16, local_size=8, num_local=1),
    dict(type='PackInputs'),
]


class HangError(BaseException):
    """No Exception: nothing is to catch it."""


@pytest.fixture(autouse=True)
def _no_hang():
    def stop(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS * 6)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('corpus') / 'train'
    folder.mkdir()
    for case in CASES:
        case.make(folder)
    return folder


def load(path, **settings):
    """Return the RGB image as LoadImage reads it."""
    signal.alarm(SECONDS)
    image = LoadImage(**settings)(dict(img_path=str(path)))['img']
    if isinstance(image, EncodedImage):
        image = image.decode(1)
    return image[..., ::-1]


@pytest.mark.parametrize('reduced', [False, True])
@pytest.mark.parametrize('case', GOOD, ids=lambda case: case.name)
def test_what_is_read(corpus, case, reduced):
    image = load(corpus / case.name, reduced=reduced)
    assert image.shape == case.image.shape
    assert image.dtype == np.uint8
    off = np.abs(image.astype(int) - case.image)
    assert off.max() <= case.off


@pytest.mark.parametrize('reduced', [False, True])
@pytest.mark.parametrize('case', BAD, ids=lambda case: case.name)
def test_what_is_refused(corpus, case, reduced):
    path = corpus / case.name
    with pytest.raises(UnreadableImageError) as caught:
        load(path, reduced=reduced)
    assert str(caught.value).startswith(f'cannot read image {path}: ')
    assert case.reason in str(caught.value)
    assert not path.with_name(f'{path.name}.ran').exists()


@pytest.mark.parametrize('reduced', [False, True])
@pytest.mark.parametrize(
    'kind', ['JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF']
)
def test_max_pixels(tmp_path, kind, reduced):
    """From the header alone: what follows it is not even an image."""
    path = tmp_path / 'a.jpg'
    path.write_bytes(encoded(picture(), kind))
    if kind != 'GIF':  # not all versions of OpenCV
        load(path, reduced=reduced, max_pixels=56 * 40)
    with pytest.raises(UnreadableImageError, match='56 x 40 are 2,240'):
        load(path, reduced=reduced, max_pixels=56 * 40 - 1)
    path.write_bytes(sized_jpeg(16384, 16385)[:-20])
    with pytest.raises(UnreadableImageError, match='16384 x 16385'):
        load(path, reduced=reduced)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('max_pixels', value) for value in (0, 1.5, True)),
        ('reduced', 'yes'),
        ('ignore_empty', True),
        ('file_client_args', dict(backend='disk')),
    ],
)
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f'LoadImage: {name}=') as caught:
        LoadImage(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize('on_error', ['skip', 'raise'])
def test_a_folder_that_vanishes(tmp_path, on_error):
    folder = tmp_path / 'train'
    folder.mkdir()
    for i in range(4):
        (folder / f'{i}.jpg').write_bytes(jpeg())
    dataset = ImageFiles(
        data_root=str(tmp_path),
        data_prefix='train',
        pipeline=VIEWS,
        on_error=on_error,
    )
    dataset[0]
    shutil.rmtree(folder)
    with pytest.raises(UnreadableImageError) as caught:
        dataset[1]
    message = str(caught.value)
    assert f"the whole folder '{folder}' is gone" in message
    assert 'continue with --resume' in message
    # It comes back, and so does the run.
    folder.mkdir()
    (folder / '1.jpg').write_bytes(jpeg())
    dataset[1]
