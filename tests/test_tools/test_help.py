# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every command explains itself at once. New ones are found by themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "if __name__ == '__main__':"
COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'tools').rglob('*.py')
    if MAIN in path.read_text(encoding='utf-8')
)
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / 'tools').rglob('*.sh')
)
# Runs all commands with --help in one fresh interpreter, where what they
# import shows, and prints for each what it printed, what it exited with,
# whether it imported torch, and its options.
ASK = """
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
answers = {}
for name in json.loads(sys.argv[1]):
    sys.argv = [name, '--help']
    sys.path.insert(0, str(Path(name).parent))
    options.clear()
    text, code = io.StringIO(), 'none'
    before = 'torch' in sys.modules  # of another command
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(name, run_name='__main__')
        except SystemExit as end:
            code = end.code
    sys.path.pop(0)
    answers[name] = dict(
        code=code or 0, text=text.getvalue(), options=list(options),
        torch='torch' in sys.modules and not before,
    )
print(json.dumps(answers))
"""
# What argparse puts into each parser, or what is hidden.
SILENT = ('==SUPPRESS==', 'show this help message and exit')
WITHOUT_DEFAULT = ('None', 'False', '[]', "'==SUPPRESS=='")


@pytest.fixture(scope='module')
def answers():
    done = subprocess.run(
        [sys.executable, '-c', ASK, json.dumps(COMMANDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def examples_of(text):
    """Return what follows "examples:" in a help."""
    _, found, examples = text.partition('\nexamples:\n')
    assert found, 'no "examples:"'
    return examples


def test_commands_are_found():
    assert {'tools/train.py', 'tools/doctor.py', 'tools/demo.py'} <= {
        *COMMANDS
    }
    assert 'tools/dist_train.sh' in SCRIPTS


@pytest.mark.parametrize('name', COMMANDS)
def test_help_teaches_and_answers_at_once(answers, name):
    answer = answers[name]
    assert answer['code'] == 0
    assert 'usage:' in answer['text']
    assert name in examples_of(answer['text'])
    assert not answer['torch'], f'{name} --help waits for torch'


@pytest.mark.parametrize('name', COMMANDS)
def test_every_option_is_explained_with_its_default(answers, name):
    for option in answers[name]['options']:
        if option['help'] in SILENT:
            continue
        assert option['help'], f'{option["name"]} has no help'
        # A text that is more than a default.
        words = re.sub(r'\(?default: .*', '', option['help'], flags=re.S)
        assert re.search(r'\w', words), f'{option["name"]}: only a default'
        if option['default'] not in WITHOUT_DEFAULT:
            assert 'default' in option['help'], (
                f'{option["name"]} does not say its default, '
                f'{option["default"]}'
            )


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts_teach_as_well(name):
    asked, wrong = (
        subprocess.run(
            ['bash', name, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for words in (['--help'], [])
    )
    assert asked.returncode == 0
    assert name in examples_of(asked.stdout)
    assert wrong.returncode == 2
    assert wrong.stderr == asked.stdout
