# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Variables at the top level of config files, and what uses them.

A config may have any variable; mmengine puts it into the sections where the
text uses it, and forgets where. One that nothing uses has no effect.
"""

import ast
import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from glob import escape
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .names import CROPS, OTHER_NAMES, PACKAGES, no_setting, sections
from .signatures import package_folder

INHERITED = re.compile(r'_base_\.(\w+)')
# Of the base files as a whole: who knows which variables.
WHOLE = re.compile(r'_base_(?!\.|\s*=[^=])|_base_\.(get|items|pop|values)\b')


class ConfigFile:
    """A config file, and those that it inherits from."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = Path(path).read_text(encoding='utf-8')
        is_python = path.endswith('.py')
        tree = ast.parse(self.text if is_python else '')
        self.uses = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        # Plain assignments: not what a loop or an unpacking names.
        self.sets = {
            target.id
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        # Of the files below, in quotes too.
        self.inherits = set(INHERITED.findall(self.text))
        self.inherits_all = bool(WHOLE.search(self.text))
        # mmengine's other format, in which any imported name is inherited.
        self.is_lazy = is_python and Config._is_lazy_import(path)

    @cached_property
    def bases(self) -> list['ConfigFile']:
        """The files that it names in ``_base_``."""
        if self.is_lazy:
            return []
        return [
            ConfigFile(Config._get_cfg_path(name, self.path)[0])
            for name in Config._get_base_files(self.path)
        ]

    @property
    def is_literal(self) -> bool:
        """Whether it is as a run writes it: each value in its place."""
        return self.is_lazy or not (self.bases or self.sets & self.uses)

    @property
    def is_installed(self) -> bool:
        """Whether it is a package's own, which a user does not change."""
        return '.mim' in Path(self.path).parts

    @cached_property
    def config(self) -> Config:
        """The whole config, without its modules.

        Raises:
            ValueError: It does not fit those that it inherits from.
        """
        try:
            return Config.fromfile(self.path, import_custom_modules=False)
        except (KeyError, TypeError) as error:
            raise ValueError(f'{self.path}: {error}') from error


def unread_variables(file: ConfigFile) -> Iterator[str]:
    """Yield a message for each variable of the config files without effect.

    A variable has one if its own file uses it, or by ``_base_`` a file that
    inherits from it. Files of installed packages may have others, also where
    they were copied to, and so may one that a run has written: its values are
    in their places already.
    """
    cfg = file.config
    for part, name in unused(file, frozenset()):
        if name in cfg:
            yield without_effect(part, name, cfg)
    for name in sorted(cfg.keys() - sections() - {CROPS}):
        # Though its file uses it, or was written by a run.
        near = difflib.get_close_matches(name, sections(), 1, 0.93)
        if near and near[0] not in cfg:
            yield no_setting(name, near, '')


def unused(
    file: ConfigFile, inherited: frozenset[str]
) -> Iterator[tuple[ConfigFile, str]]:
    """Yield each variable that neither its file nor an heir uses."""
    if not file.is_literal and not file.is_installed:
        names = file.sets - file.uses - inherited - sections()
        if names:  # as it may be a copy of a package's file
            names -= packaged(Path(file.path).name)
        for name in sorted(names):
            yield file, name
    if not file.inherits_all:
        for base in file.bases:
            yield from unused(base, inherited | file.inherits)


@cache
def packaged(name: str) -> frozenset[str]:
    """Return the variables of installed packages' configs of a name."""
    return frozenset(
        variable
        for package in PACKAGES
        if (folder := package_folder(package))
        for path in (folder / '.mim' / 'configs').rglob(escape(name))
        for variable in ConfigFile(str(path)).sets
    )


def without_effect(file: ConfigFile, name: str, cfg: Config) -> str:
    """Say that a variable has no effect, and what to set instead."""
    before = [b.config[name] for b in file.bases if name in b.config]
    if not before:
        return unknown(name, cfg, f' ({file.path})')
    return (
        f'{name} of {file.path} has no effect: the file that it inherits from '
        f'has already put another value into {places(cfg, before[0])}. Set '
        'that'
    )


def unread_options(options: Mapping[str, Any], cfg: Config) -> Iterator[str]:
    """Yield a message for each option that sets what its file lacks."""
    for path in options:
        top = path.split('.')[0]
        if top in sections() or (top == CROPS and CROPS in cfg):
            yield from through_values(path, dict(cfg.items()))
        elif top in cfg:
            yield (
                f'no setting {path}: {top} is a variable, and the config has '
                f'already put its value into {places(cfg, cfg[top])}. Set that'
            )
        else:
            yield unknown(path, cfg)


def through_values(path: str, part: Any) -> Iterator[str]:
    """Yield a message if a path leads through a value that has no parts."""
    keys = path.split('.')
    for i, key in enumerate(keys):
        whole = '.'.join(keys[:i])
        if isinstance(part, (list, tuple)):
            part = {str(number): item for number, item in enumerate(part)}
            if key not in part:
                yield (
                    f'no setting {whole}.{key}: {whole} is a list of '
                    f'{len(part)}, counted from 0'
                )
        elif not isinstance(part, Mapping):
            yield f'no setting {path}: {whole}={part!r} is a value'
            return
        if key not in part:
            return
        part = part[key]


def unknown(path: str, cfg: Config, where: str = '') -> str:
    """Say that no section of a config has a name, and which are near."""
    top = path.split('.')[0]
    wanted = {top, OTHER_NAMES.get(top, top)}
    found = [p for p, _ in leaves(cfg) if p.split('.')[-1] in wanted]
    found = sorted(found, key=lambda p: (p.count('.'), p))[:2]
    other = [o for o in wanted if o != top and o.split('.')[0] in sections()]
    names = sections() | {CROPS} & cfg.keys()
    return no_setting(path, names, '', other or found, where)


def places(cfg: Config, value: Any) -> str:
    """Return the settings that have a value, at most three."""
    found = [path for path, v in leaves(cfg) if v == value]
    if not found and isinstance(value, str):
        found = [
            p for p, v in leaves(cfg) if isinstance(v, str) and value in v
        ]
    text = ', '.join(found[:3]) or 'its place'
    return f'{text}, ...' if len(found) > 3 else text


def leaves(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Yield path and value of all settings that a run reads."""
    for name in cfg:
        if name in sections():
            yield from nodes(cfg[name], name)


def nodes(part: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield path and value of a part of a config, and of all within it."""
    yield path, part
    if isinstance(part, (list, tuple)):
        part = dict(enumerate(part))
    if isinstance(part, Mapping):
        for key, item in part.items():
            yield from nodes(item, f'{path}.{key}')
