# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of ImageFiles and LoadImage: which files, and unreadable ones."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.runner import Runner

from mmscfs.datasets import ImageFiles
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.loading import UnreadableImageError

LOAD = [dict(type='LoadImage')]
VIEWS = [
    dict(type='LoadImage'),
    dict(type='MultiCrop', global_size=16, local_size=8, num_local=1),
    dict(type='PackInputs'),
]


def write_image(path, value=0):
    """Write an image that tells its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((12, 16, 3), value, np.uint8)
    assert cv2.imwrite(str(path), image)


def write_list(root, name, *lines):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines), encoding='utf-8')


def found(dataset, root):
    """Return the files of a data set, relative to a folder."""
    return [
        os.path.relpath(dataset.get_data_info(i)['img_path'], root)
        for i in range(len(dataset))
    ]


def value_of(sample):
    return int(sample['img'][0, 0, 0])


# Which files


@pytest.mark.parametrize(
    ('files', 'prefix', 'wanted'),
    [
        (  # ImageNet
            'train/n02/a.JPEG train/n01/b.JPEG val/n01/c.JPEG',
            'train',
            'train/n01/b.JPEG train/n02/a.JPEG',
        ),
        (  # COCO, with unlabeled neighbors
            'train2017/09.jpg train2017/25.jpg unlabeled2017/01.jpg',
            'train2017/',
            'train2017/09.jpg train2017/25.jpg',
        ),
        ('c.tiff a.webp b.WEBP d.pnm', '', 'a.webp b.WEBP c.tiff d.pnm'),
        ('x/y/z.png x/mid.png top.png', '', 'top.png x/mid.png x/y/z.png'),
    ],
)
def test_images_of_a_folder(tmp_path, files, prefix, wanted):
    for file in files.split():
        write_image(tmp_path / file)
    (tmp_path / prefix / 'notes.txt').write_text('no image')
    data = ImageFiles(data_root=str(tmp_path), data_prefix=prefix)
    assert found(data, tmp_path) == wanted.split()


@pytest.mark.parametrize(
    ('root', 'prefix'),
    [('x', ''), ('', 'x'), ('.', dict(img_path='x'))],
)
def test_names_of_a_folder(tmp_path, monkeypatch, root, prefix):
    """The root alone, the prefix alone, and as mmengine has it."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / 'x/a.jpg')
    data = ImageFiles(data_root=root, data_prefix=prefix)
    assert found(data, tmp_path) == ['x/a.jpg']


def test_a_list_beside_the_folder_is_taken(tmp_path):
    """ImageNet's meta/train.txt: in its order, without its labels."""
    for name in ('n01/a.jpg', 'n02/b.jpg', 'n02/not listed.jpg'):
        write_image(tmp_path / 'train' / name)
    write_list(tmp_path, 'meta/train.txt', 'n02/b.jpg 1', 'n01/a.jpg 0', '')
    for prefix in ('train', 'train/'):
        dataset = ImageFiles(
            data_root=str(tmp_path), data_prefix=prefix, pipeline=LOAD
        )
        assert found(dataset, tmp_path) == [
            'train/n02/b.jpg',
            'train/n01/a.jpg',
        ]
        assert set(dataset[0]) & {'gt_label', 'label'} == set()


def test_names_in_a_list(tmp_path):
    """Spaces belong to a name; a whole number behind it is a label.

    A list that is asked for comes before that of the folder.
    """
    names = ['my photo.jpg', 'a  b/c d.jpg', 'photo 7.jpg', '12.jpg', 'é.jpg']
    for i, name in enumerate(names):
        write_image(tmp_path / 'train' / name, 10 * i)
    (tmp_path / 'train/area ²').touch()
    lines = [names[0], f'{names[1]} 3', names[2], f'{names[3]}\t999', names[4]]
    write_list(tmp_path, 'meta/train.txt', '12.jpg 0')
    write_list(tmp_path, 'list.txt', *lines, 'area ²', '', '  ')
    dataset = ImageFiles(
        data_root=str(tmp_path),
        data_prefix='train',
        ann_file='list.txt',
        pipeline=LOAD,
    )
    assert found(dataset, tmp_path / 'train') == [*names, 'area ²']
    values = [value_of(dataset[i]) for i in range(5)]
    assert np.abs(np.subtract(values, [0, 10, 20, 30, 40])).max() <= 1


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(data_root='nowhere'), ["no folder 'nowhere"]),
        (dict(data_prefix='val'), ['no folder ', "/val'"]),
        (dict(data_prefix='val', ann_file='list.txt'), ["/val'"]),
        (dict(data_prefix='texts'), ["/texts'", '.jpg', '(1 .txt)']),
        (dict(data_prefix='train'), ['meta/train.txt', 'is empty']),
    ],
    ids=str,
)
def test_nothing_to_read_is_named(tmp_path, settings, words):
    write_image(tmp_path / 'train/a.jpg')
    write_list(tmp_path, 'meta/train.txt', '', '  ')
    write_list(tmp_path, 'texts/notes.txt', 'no image')
    with pytest.raises(FileNotFoundError) as caught:
        ImageFiles(**dict(data_root=str(tmp_path)) | settings)
    for part in (*words, 'train_dataloader.dataset.data_root', 'data_prefix'):
        assert part in str(caught.value)


# Unreadable files


def make_dataset(root, broken=(), count=6, **settings):
    """Make images that tell their index, some of them broken."""
    for i in range(count):
        write_image(root / 'train' / f'{i}.jpg', 20 * i)
    for i in broken:  # all that bad_files.py has is refused in the same way
        (root / 'train' / f'{i}.jpg').write_text('this is not an image')
    defaults = dict(data_prefix='train', pipeline=LOAD)
    return ImageFiles(data_root=str(root), **defaults | settings)


def test_files_of_other_endings_are_counted(tmp_path, log):
    write_image(tmp_path / 'train/x/a.jpg')
    names = ['b.HEIC', 'c.heic', 'x/d.txt', 'README', 'e.1', 'f.2', 'g.3']
    for name in names:
        (tmp_path / 'train' / name).touch()
    data = dict(data_root=str(tmp_path), data_prefix='train')
    assert len(ImageFiles(**data)) == 1
    (record,) = log.records
    assert record.levelname == 'WARNING'
    message = record.getMessage()
    assert (
        f"1 images in '{tmp_path}/train'; ignored 7 files (2 .heic, "
        in message
    )
    assert message.count('1 .') == 3
    assert '1 without an ending' in message
    assert ', ...). To read files of another ending, add it to' in message
    # Asked for, and the one that was there.
    endings = ('.jpg', '.heic', '.txt', '.1', '.2', '.3', 'readme')
    log.clear()
    assert len(ImageFiles(**data, extensions=endings)) == len(names) + 1
    assert not log.records


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('work_dirs/run/crops.png', 'in a folder of runs'),
        ('my run/2026/vis_data/vis_image/crops_1.png', 'in a folder of runs'),
        ('.thumbnails/a.jpg', 'in a hidden folder'),
        ('__MACOSX/x/a.jpg', 'in a hidden folder'),
        ('x/b.jpg', 'no files or broken links'),
    ],
)
def test_images_that_are_left_out(tmp_path, log, name, reason):
    write_image(tmp_path / 'a.jpg')
    path = tmp_path / name
    if 'links' in reason:
        path.parent.mkdir()
        path.symlink_to('nowhere.jpg')
    else:
        write_image(path)
    assert found(ImageFiles(data_root=str(tmp_path)), tmp_path) == ['a.jpg']
    assert f'ignored 1 file (1 {reason})' in log.messages[0]
    if 'links' not in reason:  # named itself, a folder is taken
        assert len(ImageFiles(data_root=str(path.parent))) == 1


def test_links(tmp_path):
    """To folders elsewhere, but not to those in which they are."""
    write_image(tmp_path / 'elsewhere/a.jpg')
    write_image(tmp_path / 'my/x/b.jpg')
    for name in ('one', 'two'):
        (tmp_path / 'my' / name).symlink_to('../elsewhere')
        (tmp_path / 'my/x' / name).symlink_to('..')
    names = ['one/a.jpg', 'two/a.jpg', 'x/b.jpg']
    data = ImageFiles(data_root=str(tmp_path / 'my'))
    assert found(data, tmp_path / 'my') == names


def read_list(root, content):
    """Return the first file of a list, as bytes below its folder."""
    (root / 'list.txt').write_bytes(content)
    data = ImageFiles(
        data_root=str(root), data_prefix='train', ann_file='list.txt'
    )
    path = os.fsencode(data.get_data_info(0)['img_path'])
    return path.removeprefix(os.fsencode(root) + b'/train/')


@pytest.mark.parametrize(
    ('line', 'name'),
    [
        (b'\xef\xbb\xbfn/a.jpg', b'n/a.jpg'),  # an editor's mark
        (b'n/caf\xe9.jpg 3\r', b'n/caf\xe9.jpg'),
        (b'..a/b.jpg', b'..a/b.jpg'),
    ],
)
def test_lists_of_other_tools(tmp_path, line, name):
    path = tmp_path / 'train' / os.fsdecode(name)
    path.parent.mkdir(parents=True)
    path.touch()
    assert read_list(tmp_path, line + b'\n') == name


@pytest.mark.parametrize(
    'name',
    [
        *('n/a.jpg,0', 'n/a.jpg cat', 'train/n/a.jpg'),
        'n/a.jpg'.encode('utf-16'),
        # Out of the folder
        *('/etc/passwd', 'a/../../x.jpg', 'a\0b.jpg', 'http://h:9/b.jpg'),
    ],
)
def test_names_that_are_refused(tmp_path, name):
    """Before a run, with the list and the name that was looked for."""
    write_image(tmp_path / 'train/n/a.jpg')
    line = name if isinstance(name, bytes) else name.encode()
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        read_list(tmp_path, line + b' 1\n')
    text = str(caught.value)
    assert f'{tmp_path}/list.txt' in text
    if any(word in str(name) for word in ('..', '//', '\0', '/etc')):
        assert f'{name!r}, which is not a path below' in text
    else:
        assert 'path below' in text


def test_skipping_takes_the_next_image(tmp_path, log):
    dataset = make_dataset(tmp_path, [2, 3])
    with pytest.raises(UnreadableImageError) as caught:
        dataset[2]
    assert str(tmp_path / 'train/2.jpg') in str(caught.value)
    assert "train_dataloader.dataset.on_error='skip'" in str(caught.value)
    dataset = make_dataset(tmp_path, [2, 3], on_error='skip')
    sample = dataset[2]
    assert abs(value_of(sample) - 80) <= 1
    assert sample['img_path'] == str(tmp_path / 'train/4.jpg')
    assert sample['sample_idx'] == 4
    assert dataset.num_unreadable == 2
    dataset[2]  # read again, both count once
    assert dataset.unreadable_names() == [
        str(tmp_path / f'train/{i}.jpg') for i in (2, 3)
    ]
    assert len(log.messages) == 2
    for i, message in enumerate(log.messages):
        assert str(tmp_path / 'train' / f'{2 + i}.jpg') in message
        assert f'skipped ({1 + i} of 6 files so far)' in message
    # With the seed and epoch of a key.
    index = dataset[SampleKey(2, 8, 9)]['sample_idx']
    assert index.key == (8, 9, 4)


def test_no_readable_image_is_not_waited_for(tmp_path):
    dataset = make_dataset(tmp_path, range(6), on_error='skip')
    with pytest.raises(UnreadableImageError) as caught:
        dataset[2]
    for part in (
        str(tmp_path / 'train/5.jpg'),  # the hundredth from 2 on
        'nor could 99 files before it be read',
        '--resume',
    ):
        assert part in str(caught.value)


def test_other_errors_are_not_skipped(tmp_path):
    """A mistake in the pipeline is no unreadable image."""

    def fail(results):
        raise ValueError('a bug')

    dataset = make_dataset(tmp_path, on_error='skip')
    dataset.pipeline.transforms.append(fail)
    with pytest.raises(ValueError, match='a bug'):
        dataset[0]
    assert dataset.num_unreadable == 0


def test_skipping_is_the_same_in_workers(tmp_path):
    """Marks come back from worker processes."""
    make_dataset(tmp_path, [0, 3, 4], count=8)
    dataset = dict(type='ImageFiles', data_root=str(tmp_path), pipeline=VIEWS)
    loader = dict(
        batch_size=2,
        dataset=dict(dataset, data_prefix='train', on_error='skip'),
        sampler=dict(type='KeyedSampler'),
    )
    seen = []
    for num_workers in (0, 2):
        built = Runner.build_dataloader(
            dict(loader, num_workers=num_workers), seed=1
        )
        names, views = [], []
        for batch in built:
            names += [Path(s.img_path).stem for s in batch['data_samples']]
            views += [view for views in batch['inputs'] for view in views]
        # 0 -> 1, 3 -> 4 -> 5 and 4 -> 5.
        assert built.dataset.num_unreadable == 3
        assert sorted(names) == list('11255567')
        seen.append((names, [view.numpy().tobytes() for view in views]))
    assert seen[0] == seen[1]


# Settings


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('on_error', 'ignore', "on_error='ignore'"),
        ('max_errors', -1, 'max_errors=-1 must be a share'),
        ('max_errors', '0.1', "max_errors='0.1' must be a share"),
        ('data_prefix', ['a', 'b'], "data_prefix=['a', 'b'] must be the path"),
        ('ann_file', 's3://b/a.txt', 'one local folder or list: mount'),
        ('ann_file', 'gone.txt', 'is not a list of images: [Errno 2]'),
        ('extensions', '.jpg', "extensions='.jpg' must be a list"),
    ],
)
def test_invalid_setting_is_named(tmp_path, name, value, text):
    with pytest.raises(ValueError, match=name) as caught:
        make_dataset(tmp_path, **{name: value})
    assert text in str(caught.value)
