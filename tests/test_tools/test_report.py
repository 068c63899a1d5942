# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/analysis_tools/report.py."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest
from report_runs import scfs_cfg, write_start

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/report.py'
END = dict(loss=1.0, epoch=10, iter=400, step=400)
RELOADS = '<meta http-equiv="refresh"'
LINES = [dict(loss=2.0, epoch=1, iter=10, step=10)]

spec = importlib.util.spec_from_file_location('report_tool', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders a and b, of runs that go on."""
    monkeypatch.chdir(tmp_path)
    for name in 'ab':
        write_start(Path(name), scfs_cfg(), LINES)


def report(*args):
    return tool.main([*map(str, args)])


def refuse(capsys, *args):
    """Return what a command says that wrote nothing."""
    before = sorted(Path().rglob('*'))
    try:
        code = report(*args)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert sorted(Path().rglob('*')) == before
    lines = capsys.readouterr().err.splitlines()
    assert 'error: ' in lines[-1]
    return lines[-1]


def test_page_of_a_run_lies_in_its_folder(runs, capsys):
    assert report('a') == 0
    text = Path('a/report.html').read_text()
    assert '<h1>a</h1>' in text
    assert RELOADS not in text
    assert 'written: a/report.html' in capsys.readouterr().out


def test_page_of_several_runs_lies_beside_them(runs):
    assert report('a', 'b', './a') == 0
    assert '<h1>2 runs</h1>' in Path('report.html').read_text()
    assert report('a', 'b', '--out', 'new/folder/both.html') == 0
    assert Path('new/folder/both.html').is_file()


def test_page_is_written_anew(runs):
    assert report('a') == 0
    write_start(Path('a'), scfs_cfg(), [END], '20260102_000000')
    assert report('a') == 0
    assert '10 of 10 epochs' in Path('a/report.html').read_text()
    assert not [*Path('a').glob('.report*')]


@pytest.mark.parametrize('kind', ['absent', 'empty', 'file'])
def test_what_is_no_work_directory(runs, capsys, kind):
    if kind == 'empty':
        Path(kind).mkdir()
    elif kind == 'file':
        Path(kind).write_text('hello')
    text = refuse(capsys, 'a', kind)
    assert f"'{kind}' is not the work directory" in text
    assert '--work-dir' in text


def test_damaged_config(runs, capsys):
    (path,) = Path('a').glob('*/vis_data/config.py')
    path.write_text('model = dict(\n')
    assert str(path) in refuse(capsys, 'a')


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['a', '--out', 'a/epoch_1.pth'], 'must end in .html'),
        (['a', '--watch', '0'], '1 to 86400'),
        (['--watch', 'a'], 'directories before --watch'),
        ([], 'WORK_DIR'),
    ],
)
def test_wrong_options(runs, capsys, args, words):
    assert words in refuse(capsys, *args)


def test_out_that_cannot_be_written(runs, capsys):
    Path('taken.html').mkdir()
    assert 'remove it' in refuse(capsys, 'a', '--out', 'taken.html')
    Path('file').write_text('mine')
    refuse(capsys, 'a', '--out', 'file/report.html')
    assert Path('file').read_text() == 'mine'


def scalars(name):
    (path,) = Path(name).glob('*/vis_data/scalars.json')
    return path


def make_old(folder):
    """As if nothing had been written for two hours."""
    then = time.time() - 7200
    for path in [folder, *Path(folder).rglob('*')]:
        os.utime(path, (then, then))


def test_watching_writes_when_there_is_something_new(
    runs, monkeypatch, capsys
):
    """A torn line, its end, nothing, a damaged config, then Ctrl-C."""
    pages = []
    config = scalars('a').with_name('config.py')
    whole = config.read_text()
    line = json.dumps(dict(loss=0.125, epoch=1, iter=20, step=20))

    def append(text):
        with open(scalars('a'), 'a') as file:
            file.write(text)

    def interrupt():
        raise KeyboardInterrupt

    events = [
        lambda: append(line[:30]),
        lambda: append(f'{line[30:]}\n'),
        lambda: None,
        lambda: config.write_text('model = dict(\n'),
        lambda: config.write_text(whole),
        interrupt,
    ]

    def sleep(seconds):
        assert seconds == 5
        pages.append(Path('a/report.html').read_text())
        events.pop(0)()

    monkeypatch.setattr(tool.time, 'sleep', sleep)
    assert report('a', '--watch', '5') == 0
    assert all(f'{RELOADS} content="5">' in page for page in pages)
    assert ['>0.125<' in page for page in pages] == [False] * 2 + [True] * 4
    final = Path('a/report.html').read_text()
    assert RELOADS not in final
    found = capsys.readouterr()
    # The first, the torn line, its end, the config again, and the last.
    assert found.out.count('written: ') == 5
    assert 'stopped watching' in found.out
    assert f'not written this time: {str(config)!r}' in found.err


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_watched_page_is_left_still(runs, monkeypatch, number):
    """Also by what ends a process, and then as Ctrl-C would leave it."""
    monkeypatch.setattr(
        tool.time, 'sleep', lambda _: signal.raise_signal(number)
    )
    # Not as these tests were started, which may be under nohup.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert report('a', '--watch', '5') == 0
    finally:
        signal.signal(number, before)
    assert RELOADS not in Path('a/report.html').read_text()


def test_under_nohup_a_hang_up_ends_nothing(runs, monkeypatch):
    naps = []

    def sleep(_):
        naps.append(signal.raise_signal(signal.SIGHUP))
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(tool.time, 'sleep', sleep)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert report('a', '--watch', '5') == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(naps) == 3


def test_a_run_that_is_gone_leaves_its_last_page(runs, monkeypatch, capsys):
    def sleep(_):
        if not Path('a').exists():
            raise KeyboardInterrupt
        Path('a').rename('elsewhere')

    monkeypatch.setattr(tool.time, 'sleep', sleep)
    assert report('a', '--watch', '5', '--out', 'page.html') == 0
    text = Path('page.html').read_text()
    assert '<h1>a</h1>' in text
    assert RELOADS not in text
    assert 'not written this time: ' in capsys.readouterr().err


def test_a_full_disk_is_told(runs, monkeypatch, capsys):
    def write(path, content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmscfs.checkpoint.write_atomically', write)
    assert report('a') == 1
    error = capsys.readouterr().err
    assert error.startswith('error: --out a/report.html: ')
    assert 'No space left' in error


def test_watching_ends_with_the_runs(runs, monkeypatch, capsys):
    """Not before a last validation can have come."""
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            with open(scalars('a'), 'a') as file:
                file.write(f'{json.dumps(END)}\n')
        elif len(naps) == 2:
            make_old('a')

    monkeypatch.setattr(tool.time, 'sleep', sleep)
    assert report('a', '--watch') == 0
    assert naps == [tool.WATCH] * 2
    assert 'all runs have finished' in capsys.readouterr().out
    text = Path('a/report.html').read_text()
    assert RELOADS not in text
    assert 'Finished' in text
