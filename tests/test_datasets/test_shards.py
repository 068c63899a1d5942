# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tar shards: what they hold, who reads them, and damage."""

import os
import tarfile

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.runner import Runner

from mmscfs.datasets import ImageFiles, shards
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.shards import ShardError, read_index, write_shards
from mmscfs.datasets.transforms.loading import UnreadableImageError

VIEWS = [
    dict(type='LoadImage'),
    dict(type='MultiCrop', global_size=16, local_size=8, num_local=1),
    dict(type='PackInputs'),
]
# Lengths around those that an archive's header has room for, and characters
# that paths give a meaning.
NAMES = [
    'a.jpg',
    'a b/c#d@1+2.jpg',
    'é/ü.jpg',
    'x.tar#y/z.jpg',
    'n/' + 'o' * 94 + '.jpg',  # 100 characters
    'n/' + 'p' * 95 + '.jpg',
    'ü' * 50 + '.jpg',  # cut within a character
    '/'.join(['long' * 20] * 4) + '.jpg',
    'line\u2028end\r.jpg',
    'not utf-8 \udcff.jpg',
]


@pytest.fixture
def files(tmp_path):
    """Files of many sizes, {name: content}."""
    generator = np.random.default_rng(0)
    sizes = [1, 511, 512, 513, 5000, 0, 1024, 77, 3, 20000]
    content = {
        name: generator.bytes(size)
        for name, size in zip(NAMES, sizes, strict=True)
    }
    for name, data in content.items():
        path = tmp_path / 'files' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content


def pack(source, out, names, numbers=None):
    numbers = numbers or [0] * len(names)
    write_shards(source, zip(numbers, names, strict=True), out)
    return out


def test_every_byte_comes_back(tmp_path, files):
    out = pack(tmp_path / 'files', tmp_path / 'out', NAMES, [0] * 6 + [1] * 4)
    paths = read_index(out)
    assert list(paths) == NAMES
    for name in reversed(NAMES):
        assert fileio.get(paths[name]) == files[name]


def test_shards_are_plain_archives(tmp_path, files):
    out = pack(tmp_path / 'files', tmp_path / 'out', NAMES, [0] * 6 + [1] * 4)
    assert sorted(os.listdir(out)) == [
        'shard-00000.tar',
        'shard-00001.tar',
        'shards.tsv',
    ]
    found = {}
    for i in range(2):
        with tarfile.open(out / f'shard-0000{i}.tar', 'r:') as archive:
            for member in archive:
                found[member.name] = archive.extractfile(member).read()
    assert found == files


def test_the_same_images_give_the_same_bytes(tmp_path, files):
    outs = []
    for name in 'ab':
        outs.append(pack(tmp_path / 'files', tmp_path / name, NAMES))
        for path in (tmp_path / 'files').rglob('*.jpg'):
            os.utime(path, (1, 1))
            path.chmod(0o600)
    for name in os.listdir(outs[0]):
        contents = [(out / name).read_bytes() for out in outs]
        assert contents[0] == contents[1]


@pytest.mark.parametrize('limit', [1, 20_000, 30_000, 10**9])
def test_a_plan_keeps_to_the_limit(tmp_path, files, limit):
    """Full shards, none over the limit but those of one image."""
    sizes = [len(files[name]) for name in NAMES]
    numbers = shards.plan(NAMES, sizes, limit)
    out = pack(tmp_path / 'files', tmp_path / 'out', NAMES, numbers)
    count = max(numbers) + 1
    assert sorted(set(numbers)) == list(range(count))
    lengths = [
        (out / f'shard-{i:05d}.tar').stat().st_size for i in range(count)
    ]
    for number, length in enumerate(lengths):
        assert length <= limit or numbers.count(number) == 1
    if limit == 1:
        assert count == len(NAMES)
    if limit == 10**9:
        assert count == 1
    # The tables' figures: what an image takes.
    rooms = [shards.room(n, s) for n, s in zip(NAMES, sizes, strict=True)]
    for number, length in enumerate(lengths):
        used = sum(
            r for r, n in zip(rooms, numbers, strict=True) if n == number
        )
        assert used < length <= used + shards.END
        assert length % 10240 == 0


@pytest.mark.parametrize(
    'names',
    [
        ['a.jpg', 'b.jpg', 'a.jpg'],
        ['/etc/passwd'],
        ['a/../../b.jpg'],
        ['..'],
        ['a\tb.jpg'],
        ['a\nb.jpg'],
        ['a:/', 'a://b.jpg'],
    ],
)
def test_names_that_cannot_be_packed(names):
    with pytest.raises(ValueError, match='.') as caught:
        shards.check_names(names)
    assert repr(names[-1]) in str(caught.value)
    shards.check_names(NAMES)


def test_failing_leaves_nothing(tmp_path, files):
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / 'files', tmp_path / 'out', [*NAMES, 'gone.jpg'])
    assert os.listdir(tmp_path) == ['files']


def test_shards_are_not_replaced(tmp_path, files):
    out = pack(tmp_path / 'files', tmp_path / 'out', NAMES[:1])
    with pytest.raises(OSError, match='not empty'):
        pack(tmp_path / 'files', out, NAMES)
    assert list(read_index(out)) == NAMES[:1]
    assert sorted(os.listdir(tmp_path)) == ['files', 'out']


# The data set


@pytest.fixture
def packed(image_folder):
    """Sixteen images in train, and the same in packed/train's 3 shards."""
    names = [f'class/{i:02d}.jpg' for i in range(16)]
    numbers = sorted(i % 3 for i in range(16))
    pack(image_folder / 'train', image_folder / 'packed/train', names, numbers)
    return image_folder


def make_dataset(root, **settings):
    settings = (
        dict(data_prefix='train', pipeline=VIEWS, serialize_data=False)
        | settings
    )
    return ImageFiles(data_root=str(root), **settings)


def same_views(sample, other):
    pairs = zip(sample['inputs'], other['inputs'], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_run_on_shards_makes_the_same_views(packed):
    files, ours = make_dataset(packed), make_dataset(packed / 'packed')
    assert len(files) == len(ours) == 16
    for i in range(16):
        key = SampleKey(i, 3, 4)
        assert same_views(files[key], ours[key])
    path = ours[5]['data_samples'].img_path
    assert path.startswith(f'tar://{packed}/packed/train/shard-00000.tar#')
    assert 'class/05.jpg' in path


def test_the_folder_alone(packed):
    for settings in (
        dict(data_root=str(packed / 'packed/train'), data_prefix=''),
        dict(data_root='', data_prefix=str(packed / 'packed/train')),
    ):
        assert len(ImageFiles(serialize_data=False, **settings)) == 16


def test_a_list_of_images_in_shards(packed):
    listing = packed / 'few.txt'
    listing.write_text('class/09.jpg 3\n./class/02.jpg\n')
    ours = make_dataset(packed / 'packed', ann_file=str(listing))
    files = make_dataset(packed, ann_file=str(listing))
    assert len(ours) == 2
    for i in range(2):
        assert same_views(files[SampleKey(i)], ours[SampleKey(i)])
    listing.write_text('class/09.jpg\nclass/77.jpg\nclass/78.jpg\n')
    with pytest.raises(FileNotFoundError) as caught:
        make_dataset(packed / 'packed', ann_file=str(listing))
    for part in ('2 of 3', 'class/77.jpg', str(listing), 'ann_file'):
        assert part in str(caught.value)


def test_any_loader_of_openmmlab_reads_shards(packed):
    (path, *_) = read_index(packed / 'packed/train').values()
    images = [
        LoadImageFromFile()(dict(img_path=p))['img']
        for p in (path, str(packed / 'train/class/00.jpg'))
    ]
    assert np.array_equal(*images)


def test_worker_processes_read_at_the_same_time(packed):
    """From files that this process opened: no position is shared."""
    dataset = make_dataset(packed / 'packed')
    wanted = [dataset[SampleKey(i, 1)] for i in range(16)]
    shards.open_shard.cache_clear()
    dataset[0]
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=3,
            persistent_workers=True,
            dataset=dataset,
            sampler=dict(type='KeyedSampler', shuffle=False),
        ),
        seed=1,
    )
    for _ in range(2):
        views = [
            v for batch in loader for v in zip(*batch['inputs'], strict=True)
        ]
        assert len(views) == 16
        for mine, other in zip(views, wanted, strict=True):
            assert same_views(dict(inputs=mine), other)


def test_reading_moves_no_position(tmp_path, files):
    """Which forked processes would share."""
    out = pack(tmp_path / 'files', tmp_path / 'out', NAMES)
    for path in read_index(out).values():
        fileio.get(path)
        assert shards.open_shard(str(out / 'shard-00000.tar')).tell() == 0


def test_only_so_many_files_are_open(tmp_path):
    count = shards.OPEN_FILES + 12
    names = [f'{i}.jpg' for i in range(count)]
    for name in names:
        (tmp_path / name).write_text(name)
    out = pack(tmp_path, tmp_path / 'out', names, list(range(count)))
    shards.open_shard.cache_clear()
    for _ in range(2):
        for name, path in read_index(out).items():
            assert fileio.get(path) == name.encode()
    links = [
        os.path.join('/proc/self/fd', f) for f in os.listdir('/proc/self/fd')
    ]
    ours = [f for f in links if os.path.realpath(f).startswith(str(out))]
    assert len(ours) == shards.OPEN_FILES


# Damage


def damaged(packed, how):
    """Damage shards; return what the error must name."""
    folder = packed / 'packed/train'
    shard, index = folder / 'shard-00001.tar', folder / 'shards.tsv'
    lines = index.read_text().splitlines(keepends=True)
    if how == 'missing shard':
        shard.unlink()
        return [shard, 'missing']
    if how == 'cut shard':
        end = int(lines[11].split()[1]) + 100  # in its last image
        os.truncate(shard, end)
        return [shard, 'cut off', end]
    if how == 'index of nothing':
        index.write_text('')
    elif how == 'another file':
        index.write_text('shard,offset\nb,c\n')
    elif how == 'lines lost':
        index.write_text(''.join(lines[:9]))
    elif how == 'line cut':
        index.write_text(''.join(lines[:16]) + lines[16][:8])
        return [index, 'line 17', 'shard-00']
    elif how == 'path in the index':
        line = lines[5].replace('shard-00000.tar', '../../train/x.tar')
        index.write_text(''.join([*lines[:5], line, *lines[6:]]))
        return [index, 'line 6', '../../train/x.tar']
    return [index, 'cut off']


@pytest.mark.parametrize(
    'how',
    [
        'missing shard',
        'cut shard',
        'index of nothing',
        'another file',
        'lines lost',
        'line cut',
        'path in the index',
    ],
)
def test_damage_that_is_seen_at_the_start(packed, how):
    parts = damaged(packed, how)
    with pytest.raises(ShardError) as caught:
        make_dataset(packed / 'packed')
    for part in (*parts, 'pack them again'):
        assert str(part) in str(caught.value)


@pytest.mark.parametrize(
    'how', ['header', 'another image', 'another size', 'content', 'cut later']
)
def test_damage_that_is_seen_at_an_image(packed, how):
    """It is named, and can be skipped as any unreadable image."""
    folder = packed / 'packed/train'
    shard, index = folder / 'shard-00000.tar', folder / 'shards.tsv'
    text = index.read_text()
    offset, size = map(int, text.splitlines()[3].split('\t')[1:3])
    if how == 'another image':
        name = text.splitlines()[3].split('\t')[3]
        index.write_text(text.replace(name, 'class/77.jpg'))
    elif how == 'another size':
        index.write_text(text.replace(f'{offset}\t{size}', f'{offset}\t9'))
    dataset = make_dataset(packed / 'packed', on_error='skip')
    if how == 'cut later':
        os.truncate(shard, offset + size - 1)
    elif how in ('header', 'content'):
        with open(shard, 'r+b') as file:
            file.seek(offset - 512 if how == 'header' else offset)
            file.write(b'\xab' * 300)
    following = 6 if how == 'cut later' else 3
    assert same_views(dataset[SampleKey(2)], dataset[SampleKey(following)])
    dataset.on_error = 'raise'
    with pytest.raises(UnreadableImageError) as caught:
        dataset[2]
    message = str(caught.value)
    assert str(shard) in message
    if how != 'content':  # which only decoding can tell
        assert 'pack them again' in message


def test_a_folder_without_its_index_has_no_image(packed):
    (packed / 'packed/train/shards.tsv').unlink()
    with pytest.raises(FileNotFoundError, match='no image'):
        make_dataset(packed / 'packed')


def test_a_path_that_is_none(packed):
    with pytest.raises(ShardError, match='OFFSET'):
        fileio.get('tar://a.tar/b.jpg')
