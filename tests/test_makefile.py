# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What `make install` looks at before it downloads anything."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def install(folder, free):
    """Run `make install` where `df` finds so many MB free."""
    shutil.copy(ROOT / 'Makefile', folder)
    (folder / 'setup.py').touch()
    (folder / 'bin').mkdir()
    for name, script in {
        'df': f'echo header\necho "/dev/sda 252000 1 {free} 97% /"',
        'python-of-the-test': 'echo "began: $*"\nexit 3',
    }.items():
        program = folder / 'bin' / name
        program.write_text(f'#!/bin/sh\n{script}\n')
        program.chmod(0o755)
    # Not what an outer make was told to do.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('MAKE', 'MFLAGS', 'STACK'))
    }
    return subprocess.run(
        ('make', 'install', 'PYTHON=python-of-the-test'),
        cwd=folder,
        env=environment
        | {'PATH': f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
    )


def test_a_full_disk_is_named_before_the_installation(tmp_path):
    done = install(tmp_path, 4096)

    assert done.returncode == 2
    assert (
        f'.venv/.installed: 4096 MB are free in {tmp_path}, 7000 are needed: '
        'free some, or clone to another disk\n'
    ) in done.stderr
    assert 'began' not in done.stdout


def test_enough_space_is_not_mentioned(tmp_path):
    done = install(tmp_path, 7000)

    assert 'began: -m venv .venv\n' in done.stdout
    assert 'needed' not in done.stderr
