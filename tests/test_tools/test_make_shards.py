# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of make_shards; what it packs is tested in test_shards."""

import importlib.util
import os
import tarfile
from argparse import ArgumentTypeError
from collections import namedtuple
from pathlib import Path

import pytest

from mmscfs.datasets.shards import read_index

PATH = Path(__file__).parents[2] / 'tools/dataset_converters/make_shards.py'
spec = importlib.util.spec_from_file_location('make_shards', PATH)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def source(tmp_path):
    """ImageNet's layout: 3 images of 2 classes, and a file that is none."""
    folder = tmp_path / 'imagenet/train'
    for name in ('n02/b.JPEG', 'n01/a.JPEG', 'n01/c d.JPEG'):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    (folder / 'notes.txt').write_text('no image')
    return folder


def run(*arguments):
    return tool.main([str(argument) for argument in arguments])


def names(out):
    return list(read_index(out))


def test_a_folder(source, tmp_path, capsys):
    out = tmp_path / 'new/shards'
    assert run(source, out) == 0
    assert names(out) == ['n01/a.JPEG', 'n01/c d.JPEG', 'n02/b.JPEG']
    with tarfile.open(out / 'shard-00000.tar', 'r:') as archive:
        member = archive.extractfile('n01/c d.JPEG')
        assert member.read() == b'n01/c d.JPEG' * 100
    assert capsys.readouterr().out == (
        f'{out}: 3 images in 1 shards, 0.00 GB\n'
    )
    # Once more: it is left alone.
    before = (out / 'shards.tsv').stat().st_mtime_ns
    assert run(source, out) == 2
    assert f'error: {out} exists' in capsys.readouterr().err
    assert (out / 'shards.tsv').stat().st_mtime_ns == before


def test_the_list_that_pre_training_reads(source, tmp_path):
    listing = source.parent / 'meta/train.txt'
    listing.parent.mkdir()
    listing.write_text('n02/b.JPEG 1\n./n01/a.JPEG 0\n')
    assert run(source, tmp_path / 'out') == 0
    assert names(tmp_path / 'out') == ['n02/b.JPEG', 'n01/a.JPEG']


def test_a_list_of_ones_own(source, tmp_path, monkeypatch):
    """Relative paths are those of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path('few.txt').write_text('n01/c d.JPEG\n')
    assert run('imagenet/train', 'out', '--list', 'few.txt') == 0
    assert names('out') == ['n01/c d.JPEG']


def test_a_size_for_each(source, tmp_path):
    """Each image takes 2 kB or so, and the end of a file 10."""
    assert run(source, tmp_path / 'out', '--max-size', '15KB') == 0
    files = sorted(os.listdir(tmp_path / 'out'))
    assert files == ['shard-00000.tar', 'shard-00001.tar', 'shards.tsv']


def test_an_empty_folder_is_filled(source, tmp_path):
    (tmp_path / 'out').mkdir()
    assert run(source, tmp_path / 'out') == 0
    assert len(names(tmp_path / 'out')) == 3


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        ('1GB', 10**9),
        ('250MB', 250 * 10**6),
        ('1.5 gb', 1_500_000_000),
        ('64kb', 64_000),
        ('2TB', 2 * 10**12),
    ],
)
def test_sizes(text, size):
    assert tool.parse_size(text) == size


@pytest.mark.parametrize('text', ['', '1', '0GB', '-1GB', 'GB', '1GiB', 'xMB'])
def test_what_is_no_size(text, capsys):
    with pytest.raises(ArgumentTypeError, match='1GB or 250MB'):
        tool.parse_size(text)
    with pytest.raises(SystemExit) as caught:
        run('a', 'b', f'--max-size={text}')
    assert caught.value.code == 2


def refused(capsys, *arguments):
    """Return the one line of an error with exit code 2."""
    assert run(*arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith('error: ')
    assert line.count('\n') == 1
    return line


def test_what_is_refused(source, tmp_path, capsys):
    out = tmp_path / 'out'
    gone = tmp_path / 'gone'
    assert str(gone) in refused(capsys, gone, out)
    assert 'gone.txt' in refused(capsys, source, out, '--list', 'gone.txt')
    (tmp_path / 'list.txt').write_text('n01/a.JPEG\n../x.JPEG\n')
    line = refused(capsys, source, out, '--list', tmp_path / 'list.txt')
    assert '../x.JPEG' in line
    (tmp_path / 'list.txt').write_text('n01/a.JPEG\nn01/gone.JPEG\n')
    line = refused(capsys, source, out, '--list', tmp_path / 'list.txt')
    assert 'gone.JPEG' in line
    assert 'exists' in refused(capsys, source, source)
    assert not out.exists()
    assert run(source, out) == 0
    assert 'shards already' in refused(capsys, out, tmp_path / 'again')


def test_no_space(source, tmp_path, capsys, monkeypatch):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(tool.shutil, 'disk_usage', lambda _: usage(2000))
    line = refused(capsys, source, tmp_path / 'out')
    assert 'GB free' in line
    assert sorted(os.listdir(tmp_path)) == ['imagenet']


def test_failing_leaves_nothing(source, tmp_path, capsys, monkeypatch):
    """Whatever was written before a full disk."""
    add, calls = tarfile.TarFile.addfile, []

    def fail(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, 'No space left on device')
        add(*args)

    monkeypatch.setattr(tarfile.TarFile, 'addfile', fail)
    assert run(source, tmp_path / 'out') == 1
    assert 'No space left' in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ['imagenet']
