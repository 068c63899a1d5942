# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every image of bad_files.py is read rightly, or refused with its reason."""

import shutil
import signal

import cv2
import numpy as np
import pytest
from bad_files import (
    CASES,
    animated,
    encoded,
    half,
    jpeg,
    picture,
    sized_jpeg,
    spoiled,
)
from mmengine.runner import Runner

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


@pytest.mark.parametrize('name', ['GIF', 'animated GIF'])
def test_gif(tmp_path, name):
    """The first frame; OpenCV before 4.11 knows none, and refuses it."""
    path = tmp_path / 'a.gif'
    whole = encoded(picture(), 'GIF')
    path.write_bytes(whole if name == 'GIF' else animated('GIF'))
    if cv2.imdecode(np.frombuffer(whole, np.uint8), 1) is None:
        with pytest.raises(UnreadableImageError, match='of a kind'):
            load(path)
    else:  # of 256 colors
        off = np.abs(load(path).astype(int) - picture())
        assert off.max() <= 16


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
        *(('max_pixels', value) for value in (0, -1, 1.5, None, True)),
        *(('reduced', value) for value in ('yes', 2, None)),
        ('ignore_empty', True),
        ('file_client_args', dict(backend='disk')),
    ],
)
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f'LoadImage: {name}=') as caught:
        LoadImage(**{name: value})
    assert repr(value) in str(caught.value)


def test_damage_that_cannot_be_told(tmp_path):
    """JPEG has no checksums: a part of the picture is wrong.

    So the guide says; should a decoder learn it, this test is to change.
    """
    large = np.tile(picture(), (8, 8, 1))
    for content, wanted in (
        (spoiled(jpeg()), picture()),
        (half(jpeg(large)) + b'\xff\xd9', large),
    ):
        path = tmp_path / 'a.jpg'
        path.write_bytes(content)
        image = load(path)
        assert image.shape == wanted.shape
        assert np.abs(image.astype(int) - wanted).max() > 30


# In a run


def test_bad_files_are_skipped_counted_and_named(corpus, log):
    """A good file after each, so that every bad one is read once."""
    names = [n for case in BAD for n in (case.name, 'plain.jpg')]
    (corpus.parent / 'list.txt').write_text('\n'.join(names))
    dataset = ImageFiles(
        data_root=str(corpus.parent),
        data_prefix='train',
        ann_file='list.txt',
        pipeline=VIEWS,
        on_error='skip',
        serialize_data=False,
    )
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            dataset=dataset,
            sampler=dict(type='KeyedSampler', shuffle=False),
        ),
        seed=0,
    )
    read = [s.img_path for b in loader for s in b['data_samples']]
    assert set(read) == {str(corpus / 'plain.jpg')}
    assert len(read) == len(names)
    assert loader.dataset.num_unreadable == len(BAD)
    for case in BAD:
        (line,) = [
            text for text in log.messages if str(corpus / case.name) in text
        ]
        assert case.reason in line
        assert 'so far' in line


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
