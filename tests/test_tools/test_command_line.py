# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a command says before and while it fails."""

import signal
import sys

import pytest
from commands import ROOT, load_tool, run

from mmscfs.datasets.transforms.loading import UnreadableImageError

# As torch hands on the error of a loader's worker.
WORKERS = (
    'Caught UnreadableImageError in DataLoader worker process 0.\n'
    'Original Traceback (most recent call last):\n'
    'mmscfs.UnreadableImageError: cannot read image a.jpg: empty; repair it\n'
)


@pytest.fixture(scope='module')
def tool():
    return load_tool('command_end')


def run_iter(error):
    """Fail in a function that is called as those of a training loop."""
    raise error


@pytest.mark.parametrize('text', [WORKERS, WORKERS.split(': ', 1)[1]])
def test_an_image_that_cannot_be_read_is_one_line(tool, text):
    with pytest.raises(SystemExit) as caught, tool.errors_in_one_line():
        run_iter(UnreadableImageError(text))
    message = 'error: cannot read image a.jpg: empty; repair it'
    assert caught.value.code == message


@pytest.mark.parametrize(
    'error',
    [ValueError('any'), type('UnreadableImageError', (ValueError,), {})('a')],
)
def test_other_errors_of_a_step_keep_their_traceback(tool, error):
    with (
        pytest.raises(ValueError, match='^a') as caught,
        tool.errors_in_one_line(),
    ):
        run_iter(error)
    assert caught.value is error


@pytest.mark.parametrize(
    ('work', 'code', 'start', 'end'),
    [
        ('signal.raise_signal(2)', -signal.SIGINT, 'stopped', 'stopped'),
        ('0 / 0', 1, 'Traceback', 'ZeroDivisionError: division by zero'),
    ],
)
def test_ctrl_c_is_one_line(work, code, start, end):
    """A signal's exit code is that of a shell, 130, less 128, and negative."""
    # A shell that starts a command behind it has it ignore Ctrl-C.
    listen = 'signal.signal(signal.SIGINT, signal.default_int_handler)'
    setup = (
        f"import signal, command_line as c; c.make_parser('', ''); {listen}"
    )
    script = f'{setup}; {work}'
    done = run(sys.executable, '-c', script, PYTHONPATH=str(ROOT / 'tools'))
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert lines[0].startswith(start)
    assert lines[-1] == end


@pytest.mark.parametrize(
    ('is_terminal', 'rank', 'text'),
    [(True, '0', 'reading a.py ...\n'), (True, '1', ''), (False, '0', '')],
)
def test_a_terminal_is_told_what_begins(
    monkeypatch, capsys, is_terminal, rank, text
):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: is_terminal)
    load_tool('command_line').announce('reading a.py')
    assert capsys.readouterr().err == text


def test_scores_outlive_ctrl_c():
    """It leaves out the checkpoint under way, and those after it."""

    def score(path):
        if path == 'b':
            raise KeyboardInterrupt
        return path * 2

    gather = load_tool('command_line').gather
    found, problems = gather(['a', 'b', 'c'], score)
    assert found == dict(a='aa')
    assert problems == ['b: stopped before', 'c: stopped before']
    with pytest.raises(KeyboardInterrupt):
        gather(['b', 'c'], score)
