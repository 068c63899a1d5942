# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run a document's block of code, or check it as its mark says."""

import ast
import copy
import re
from functools import cache
from pathlib import Path

import mmpretrain.registry
import pytest
from documents import NAME, ROOT, Block
from mmengine.config import Config
from mmengine.registry import Registry
from sandbox import Sandbox
from shell import Command, read_commands

from mmscfs.settings.names import unread_arguments
from mmscfs.settings.variables import unread_options

# Why a block is not run here; several with commas between.
NEEDS = re.compile(
    'ImageNet|ImageNet-100|COCO|VOC|CIFAR-10|CIFAR-100|CUB-200|Cars|Aircraft|'
    r'Pets|a checkpoint of .+|a GPU|\d+ GPUs|several nodes|Slurm|network|'
    'minutes|an environment'
)
HELP = (
    'put a mark on the line before the block: <!-- test: needs ImageNet, '
    f'8 GPUs --> (what can be needed: {NEEDS.pattern}), <!-- test: runs in '
    'tests/test_tools/test_x.py -->, or of Python <!-- test: settings of '
    'configs/x.py -->'
)
# Words that name a file of the project.
OURS = re.compile(r'(?:configs|docs|requirements|tests|tools)/\S+')


def check_block(sandbox: Sandbox, block: Block) -> None:
    """Run or check a block of code.

    Raises:
        AssertionError: A command or a mark is wrong.
        Exception: What a program raised.
    """
    kind, what = split_mark(block.mark)
    if block.language == 'python':
        check_python(sandbox, block, kind, what)
    elif block.language == 'bash':
        check_shell(sandbox, block, kind, what)
    elif not block.language:
        hidden = re.search(
            r'^\s*(?:python|tools/\S+\.(?:py|sh))\s', block.text, re.M
        )
        assert not hidden, 'a command: begin its block by ```bash'


def split_mark(mark: str) -> tuple[str, str]:
    """Return the kind of a mark and the rest; "" for none."""
    for kind in ('needs', 'runs in', 'settings of'):
        if mark.startswith(f'{kind} '):
            return kind, mark.removeprefix(kind).strip()
    assert not mark, f'unknown mark {mark!r}: {HELP}'
    return '', ''


def check_reasons(reasons: str) -> None:
    """Check a mark "needs A, B"."""
    for reason in reasons.split(', '):
        known = NEEDS.fullmatch(reason)
        assert known, f'unknown reason {reason!r}: {HELP}'


def check_pointer(name: str) -> None:
    """Check a mark "runs in NAME"."""
    assert (ROOT / name).is_file(), f'no test {name}'


def check_shell(sandbox: Sandbox, block: Block, kind: str, what: str) -> None:
    """Run the commands of a block, or check them as its mark says."""
    commands = read_commands(block.text, sandbox.root)
    if kind == 'needs':
        check_reasons(what)
    elif kind:
        assert kind == 'runs in', f'a mark of Python: {HELP}'
        check_pointer(what)
    for command in commands:
        if kind:
            check_without_running(sandbox, command)
        else:
            runs = str(command.tool).endswith('.py')
            assert runs, f'{command}\ncannot run here: {HELP}'
            sandbox.run(command)


def check_without_running(sandbox: Sandbox, command: Command) -> None:
    """Check what can be of a command that needs what is not here."""
    for word in command.words:
        if OURS.fullmatch(word):
            found = (ROOT / word).exists() or (sandbox.root / word).exists()
            assert found, f'{command}\nno {word}'
    if command.words[0] == 'make':
        makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
        for target in command.words[1:]:
            found = '=' in target or re.search(
                rf'^{re.escape(target)}:', makefile, re.M
            )
            assert found, f'{command}\nthe Makefile has no {target}'
    if not command.tool:
        return
    arguments = sandbox.parse(command)
    config = getattr(arguments, 'config', None)
    options = getattr(arguments, 'cfg_options', None)
    if config and '::' not in str(config):
        cfg = load_config(sandbox.root / config)
        if isinstance(options, dict):  # else it is the tool that puts them in
            check_settings(cfg, options, str(config))


def check_settings(cfg: Config, options: dict, name: str) -> None:
    """Check that a config takes settings."""
    wrong = [*unread_options(options, cfg)]
    if not wrong:
        cfg.merge_from_dict(options)
        wrong = [*unread_arguments(cfg)]
    assert not wrong, f'{name}: {wrong}'


def load_config(path: Path) -> Config:
    """Load a config, without its imports, which register for good."""
    assert path.is_file(), f'no config {path}'
    return copy.deepcopy(load_once(path))


@cache
def load_once(path: Path) -> Config:
    """Load a config that many commands name."""
    return Config.fromfile(path, import_custom_modules=False)


def check_python(sandbox: Sandbox, block: Block, kind: str, what: str) -> None:
    """Run a block of Python, or check it as its mark says."""
    tree = ast.parse(block.text)
    path = None
    if named := NAME.match(block.text):  # commands further down may use it
        path = sandbox.root / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding='utf-8')
    if kind == 'needs':
        check_reasons(what)
    elif kind == 'runs in':
        check_pointer(what)
    elif kind == 'settings of':
        scope: dict = {}
        exec(block.text, scope)
        del scope['__builtins__']
        cfg = load_config(sandbox.root / what)
        check_settings(cfg, flatten(scope), what)
    elif all(isinstance(part, ast.Assign) for part in tree.body):
        assert path, f'settings of what? {HELP}'
        load_config(path)
    else:
        with pytest.MonkeyPatch.context() as patch:
            for registry in vars(mmpretrain.registry).values():
                if isinstance(registry, Registry):  # others print it too
                    names = dict(registry.module_dict)
                    patch.setattr(registry, '_module_dict', names)
            patch.chdir(sandbox.root)
            exec(block.text, {'__name__': '__main__'})


def flatten(settings: dict, prefix: str = '') -> dict:
    """Return settings by dotted path; lists are values."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value and '_delete_' not in value:
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat
