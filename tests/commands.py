# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The project's commands, as a user types them.

``run`` starts a process, which imports the whole stack before it works;
``call`` runs a script of tools/ in this process, without that wait.
"""

import contextlib
import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Folders of configs whose bases stay as they are; conftest.py reads them once.
CONFIG_FOLDERS = [ROOT / 'configs']


def run(*words, cwd=ROOT, **environment):
    """Run a command, in the repository; return the finished process."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHON': sys.executable,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def call(script, *words, cwd=ROOT, **environment):
    """Run a script of tools/ in this process, as if it were alone.

    Returns:
        SimpleNamespace: ``returncode``, ``stdout`` and ``stderr``, as of a
        finished process, and ``output``, both texts.
    """
    out, err = io.StringIO(), io.StringIO()
    path, code = ROOT / script, 0
    before = {*sys.modules}
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.syspath_prepend(str(path.parent))
        patch.setattr(sys, 'argv', [str(script), *map(str, words)])
        patch.setattr(sys, 'excepthook', sys.excepthook)  # a command sets it
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as end:
            code = end.code
        finally:
            forget({*sys.modules} - before, path.parent, Path(cwd))
    if isinstance(code, str):  # as Python does
        print(code, file=err)
        code = 1
    stdout, stderr = out.getvalue(), err.getvalue()
    return SimpleNamespace(
        returncode=code or 0,
        stdout=stdout,
        stderr=stderr,
        output=stdout + stderr,
    )


# Calls scripts one after the other, and prints a line of JSON for each: what
# it exits with, what it prints, whether it imports torch, and its options.
FRESH = """
import argparse, contextlib, io, json, runpy, sys
from pathlib import Path

options = []
plain = argparse.ArgumentParser.print_help

def print_help(parser, file=None):
    for action in parser._actions:
        options.append(dict(
            name='/'.join(action.option_strings) or action.dest,
            help=action.help and str(action.help),
            default=repr(action.default),
        ))
    plain(parser, file)

argparse.ArgumentParser.print_help = print_help
for name, words in json.loads(sys.argv[1]):
    sys.argv = [name, *words]
    sys.path.insert(0, str(Path(name).parent))
    options.clear()
    text, code = io.StringIO(), 'none'
    before = 'torch' in sys.modules  # of another command
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            runpy.run_path(name, run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
    sys.path.pop(0)
    print(json.dumps(dict(
        code=code, text=text.getvalue(), options=options,
        torch='torch' in sys.modules and not before,
    )))
"""


def call_fresh(calls, cwd=ROOT, **environment):
    """Call scripts in a new interpreter, where what they import shows.

    Args:
        calls (list): The path of a script and its words, of each call.
        cwd (Path): Where they are called. Defaults to the repository.
        **environment (str): What their environment has more.

    Returns:
        list[dict]: ``code``, ``text``, ``torch`` and ``options`` of each.
    """
    words = sys.executable, '-c', FRESH, json.dumps(calls)
    done = run(*words, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def stand_in(patch, fake):
    """Let a function do what jobs of tools/plan.py do, one at a time.

    It gets the command and its log, and returns the exit code.
    """

    def call(command, log, environment):
        code = fake(command, log)
        return SimpleNamespace(
            poll=lambda: code, terminate=lambda: None, wait=lambda: code
        )

    patch.setattr('jobs.call', call)
    patch.setattr('plan.PAUSE', 0)


def forget(names, *folders):
    """Let modules of the folders be imported again: others have their names.

    E.g. the files that a guide has its reader write.
    """
    for name in names:
        file = getattr(sys.modules[name], '__file__', None) or ''
        if any(Path(file).parent == folder for folder in folders):
            del sys.modules[name]


def load_tool(name):
    """Load a script of tools/ by its name, e.g. "benchmarks/step".

    What lies beside it can be imported by it, as in its own process.
    """
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        patch.setitem(sys.modules, path.stem, module)  # for dataclasses
        spec.loader.exec_module(module)
    return module


def refusal(script, *words, **environment):
    """Call a script that must refuse before it works; return its error.

    It says one line, without a traceback: exit code 1, or 2 of a command
    line that makes no sense.
    """
    done = call(script, *words, **environment)
    assert done.returncode in (1, 2), done.output
    assert done.stderr.count('error: ') == 1, done.stderr
    return done.stderr[done.stderr.index('error: ') :]
