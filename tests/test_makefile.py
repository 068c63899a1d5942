# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What `make install` looks at before it downloads anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHONS = ('python3.13', 'python3.12', 'python3.11', 'python3.10', 'python3')
# Answers the question for a suitable version, and begins nothing.
SUITABLE = '[ "$1" = -c ] && exit 0\necho "began: ${0##*/} $*"\nexit 3'
UNSUITABLE = 'exit 1'


@pytest.fixture
def install(tmp_path):
    """Run `make install` with such programs, where so many MB are free."""
    for name in ('Makefile', 'requirements'):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / 'setup.py').touch()
    (tmp_path / 'bin').mkdir()

    def install(*words, free=10000, is_install=True, **programs):
        programs['df'] = f'echo header\necho "/dev/sda 252000 1 {free} 97% /"'
        for name, script in programs.items():
            program = tmp_path / 'bin' / name
            program.write_text(f'#!/bin/sh\n{script}\n')
            program.chmod(0o755)
        # Not what an outer make was told to do.
        outer = ('MAKE', 'MFLAGS', 'STACK', 'OPS', 'PYTHON', 'VENV')
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(outer)
        }
        path = f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}'
        return subprocess.run(
            ('make', *['install'] * is_install, *words),
            cwd=tmp_path,
            env=environment | {'PATH': path},
            capture_output=True,
            text=True,
        )

    return install


def test_a_full_disk_is_named_before_the_installation(install, tmp_path):
    done = install(free=4096, **dict.fromkeys(PYTHONS, SUITABLE))
    assert done.returncode == 2
    assert (
        f'.venv/.installed: 4096 MB are free in {tmp_path}, 10000 are needed: '
        'free some, or clone to another disk\n'
    ) in done.stderr
    assert 'began' not in done.stdout


@pytest.mark.parametrize('place', range(len(PYTHONS)))
def test_the_newest_suitable_python_is_taken(install, place):
    programs = dict.fromkeys(PYTHONS[:place], UNSUITABLE)
    programs |= dict.fromkeys(PYTHONS[place:], SUITABLE)
    done = install(**programs)
    assert f'began: {PYTHONS[place]} -m venv .venv\n' in done.stdout
    # One that is named is the only one.
    done = install('PYTHON=mine', mine=SUITABLE, **programs)
    assert 'began: mine -m venv .venv\n' in done.stdout


@pytest.mark.parametrize(
    ('words', 'among'),
    [((), ' '.join(PYTHONS)), (('PYTHON=mine',), 'mine')],
)
def test_no_suitable_python_is_one_sentence(install, words, among):
    done = install(*words, **dict.fromkeys((*PYTHONS, 'mine'), UNSUITABLE))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f'No Python 3.10 to 3.13 with venv and pip among: {among}. '
        'Install one (Debian, Ubuntu: python3-venv), '
        'or name it: make install PYTHON=/path/to/python3.12'
    )


@pytest.mark.parametrize(
    ('version', 'is_suitable'),
    [
        ((3, 9, 18), False),
        ((3, 10, 0), True),
        ((3, 13, 9), True),
        ((3, 14, 0), False),
    ],
)
def test_the_supported_versions(version, is_suitable, monkeypatch):
    text = (ROOT / 'Makefile').read_text()
    code = text.partition('SUITABLE := ')[2].partition('\n\n')[0]
    code = code.partition('\nPYTHONS')[0].replace('\\\n', ' ')
    monkeypatch.setattr('sys.version_info', version)
    with pytest.raises(SystemExit) as end:
        exec(code, {})
    assert (not end.value.code) == is_suitable


def test_what_is_installed_is_not_mixed(install, tmp_path):
    stamp = tmp_path / '.venv' / '.installed'
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.write_text('#!/bin/sh\necho Python 3.11.7\n')
    python.chmod(0o755)
    stamp.write_text('compiled\n')
    done = install('OPS=torchvision')
    assert done.returncode == 2
    assert (
        'OPS=torchvision, but .venv has OPS=compiled: run make clean first'
    ) in done.stderr
    done = install('PYTHON=mine', mine='echo Python 3.12.1')
    assert done.returncode == 2
    assert (
        'PYTHON=mine is Python 3.12.1, but .venv has Python 3.11.7: run make '
        'clean first'
    ) in done.stderr
    # What it recommends is not refused for the same reason.
    for goal in ('clean', 'doctor'):
        done = install('-n', goal, 'OPS=torchvision', is_install=False)
        assert done.returncode == 0, done.stderr
    # Without either, it stays as it is.
    assert install().returncode == 0
    assert stamp.read_text() == 'compiled\n'
    assert install('PYTHON=mine', mine='echo Python 3.11.7').returncode == 0
