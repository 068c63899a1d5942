# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/analysis_tools/report.py."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from commands import load_tool
from report_runs import scfs_cfg, write_start

END = dict(loss=1.0, epoch=10, iter=400, step=400)
RELOADS = '<meta http-equiv="refresh"'
LINES = [dict(loss=2.0, epoch=1, iter=10, step=10)]

tool = load_tool('analysis_tools/report')


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    """Folders a and b, of runs that go on."""
    monkeypatch.chdir(tmp_path)
    for name in 'ab':
        write_start(Path(name), scfs_cfg(), LINES)


def report(*args):
    return tool.main([*map(str, args)])


@pytest.fixture
def watch(monkeypatch):
    """Watch a run; call one event after another instead of sleeping."""

    def watch(events, *args):
        events = iter(events)

        def sleep(_):
            next(events)()

        monkeypatch.setattr(tool.time, 'sleep', sleep)
        code = report('a', '--watch', *args)
        assert list(events) == []
        return code

    return watch


def interrupt():
    raise KeyboardInterrupt


def append(text):
    (path,) = Path('a').glob('*/vis_data/scalars.json')
    with open(path, 'a') as file:
        file.write(text)


def page():
    return Path('a/report.html').read_text()


def test_where_the_page_lies(capsys):
    """In the folder of a run, or beside several; it replaces an older one."""
    assert report('a') == 0
    assert '<h1>a</h1>' in page()
    assert RELOADS not in page()
    assert 'written: a/report.html' in capsys.readouterr().out
    write_start(Path('a'), scfs_cfg(), [END], '20260102_000000')
    assert report('a') == 0
    assert '10 of 10 epochs' in page()
    assert not [*Path('a').glob('.report*')]
    assert report('a', 'b', './a') == 0
    assert '<h1>2 runs</h1>' in Path('report.html').read_text()
    assert report('a', 'b', '--out', 'new/folder/both.html') == 0
    assert Path('new/folder/both.html').is_file()


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['a', 'absent'], "no folder 'absent': '.' has "),
        (['a', 'empty'], 'it lacks <timestamp>/vis_data/config.py'),
        (['damaged'], 'damaged/20260101_000000/vis_data/config.py'),
        (['a', '--out', 'a/epoch_1.pth'], 'must end in .html'),
        (['a', '--out', 'taken.html'], 'remove it'),
        (['a', '--out', 'file/report.html'], 'file'),
        (['a', '--watch', '0'], '1 to 86400'),
        (['--watch', 'a'], 'directories before --watch'),
    ],
)
def test_refusals(capsys, args, words):
    """Code 2, a line that says what is wrong, and nothing written."""
    Path('empty').mkdir()
    Path('file').write_text('mine')
    Path('taken.html').mkdir()
    log = write_start(Path('damaged'), scfs_cfg(), LINES)
    (log / 'config.py').write_text('model = dict(\n')
    before = sorted(Path().rglob('*'))
    try:
        code = report(*args)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert sorted(Path().rglob('*')) == before
    assert Path('file').read_text() == 'mine'
    line = capsys.readouterr().err.splitlines()[-1]
    assert 'error: ' in line
    assert words in line


def test_a_full_disk_is_told(monkeypatch, capsys):
    def write(path, content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmscfs.checkpoint.write_atomically', write)
    assert report('a') == 1
    error = capsys.readouterr().err
    assert error.startswith('error: cannot write a/report.html: ')
    assert 'No space left' in error


def test_watching_writes_when_there_is_something_new(watch, capsys):
    """A torn line, its end, nothing, a damaged config, then Ctrl-C."""
    (config,) = Path('a').glob('*/vis_data/config.py')
    whole = config.read_text()
    line = json.dumps(dict(loss=0.125, epoch=1, iter=20, step=20))
    pages = []
    events = [
        lambda: append(line[:30]),
        lambda: append(f'{line[30:]}\n'),
        lambda: None,
        lambda: config.write_text('model = dict(\n'),
        lambda: config.write_text(whole),
        interrupt,
    ]
    seen = [lambda e=e: (pages.append(page()), e()) for e in events]
    assert watch(seen, '5') == 0
    assert all(f'{RELOADS} content="5">' in page for page in pages)
    assert ['>0.125<' in page for page in pages] == [False] * 2 + [True] * 4
    assert RELOADS not in page()
    found = capsys.readouterr()
    # The first, the torn line, its end, the config again, and the last.
    assert found.out.count('written: ') == 5
    assert 'stopped watching' in found.out
    assert f'not written this time: {str(config)!r}' in found.err


def test_signals_leave_a_page_still_but_not_under_nohup(watch):
    """A signal ends watching as Ctrl-C does, unless it is ignored."""
    number = signal.SIGHUP
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert watch([lambda: signal.raise_signal(number)], '5') == 0
        assert RELOADS not in page()
        signal.signal(number, signal.SIG_IGN)
        ignored = [lambda: signal.raise_signal(number)] * 2
        assert watch([*ignored, interrupt], '5') == 0
    finally:
        signal.signal(number, before)


def test_a_run_that_is_gone_leaves_its_last_page(watch, capsys):
    events = [lambda: Path('a').rename('elsewhere'), interrupt]
    assert watch(events, '5', '--out', 'page.html') == 0
    text = Path('page.html').read_text()
    assert '<h1>a</h1>' in text
    assert RELOADS not in text
    assert 'not written this time: ' in capsys.readouterr().err


def test_watching_ends_with_the_runs(watch, capsys):
    """Not before a last validation can have come."""

    def make_old():
        then = time.time() - 7200
        for path in ['a', *Path('a').rglob('*')]:
            os.utime(path, (then, then))

    end = f'{json.dumps(END)}\n'
    assert watch([lambda: append(end), make_old]) == 0
    assert 'all runs have finished' in capsys.readouterr().out
    assert RELOADS not in page()
    assert 'Finished' in page()
