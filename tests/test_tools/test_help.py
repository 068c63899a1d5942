# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every command explains itself at once. New ones are found by themselves."""

import re

import pytest
from commands import ROOT, call_fresh, run

MAIN = "if __name__ == '__main__':"
COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'tools').rglob('*.py')
    if MAIN in path.read_text(encoding='utf-8')
)
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / 'tools').rglob('*.sh')
)
# What argparse puts into each parser, or what is hidden.
SILENT = ('==SUPPRESS==', 'show this help message and exit')
WITHOUT_DEFAULT = ('None', 'False', '[]', "'==SUPPRESS=='")


@pytest.fixture(scope='module')
def answers():
    found = call_fresh([(name, ['--help']) for name in COMMANDS])
    return dict(zip(COMMANDS, found, strict=True))


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
    asked, wrong = run('bash', name, '--help'), run('bash', name)
    assert asked.returncode == 0
    assert name in examples_of(asked.stdout)
    assert wrong.returncode == 2
    assert wrong.stderr == asked.stdout
