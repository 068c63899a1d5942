# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Variables at the top level of config files, and what uses them.

A config may have any variable; mmengine puts it into the sections where the
text uses it, and forgets where. One that nothing uses has no effect.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .names import CROPS, OTHER_NAMES, no_setting, sections


class ConfigFile:
    """A config file, and those that it inherits from."""

    def __init__(self, path: str) -> None:
        self.path = path
        is_python = path.endswith('.py')
        text = Path(path).read_text(encoding='utf-8') if is_python else ''
        tree = ast.parse(text)
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
    """Yield a message for each variable of a config file without effect.

    A variable has one if its own text uses it. Files of installed packages
    may have others, and so may one that a run has written: its values are in
    their places already.
    """
    if file.is_literal or file.is_installed:
        return
    cfg = file.config
    for name in sorted((file.sets - file.uses - sections()) & cfg.keys()):
        before = [b.config[name] for b in file.bases if name in b.config]
        if before:
            yield (
                f'{name} of {file.path} has no effect: the file that it '
                'inherits from has already put another value into '
                f'{places(cfg, before[0])}. Set it there instead'
            )
        else:
            yield unknown(name, cfg, f' ({file.path})')


def unread_options(options: Mapping[str, Any], cfg: Config) -> Iterator[str]:
    """Yield a message for each option that sets what its file lacks."""
    for path in options:
        top = path.split('.')[0]
        if top in sections() or (top == CROPS and CROPS in cfg):
            continue  # what is below is checked with the whole config
        if top in cfg:
            yield (
                f'no setting {path}: {top} is a variable, and the config has '
                f'already put its value into {places(cfg, cfg[top])}. Set it '
                'there instead'
            )
        else:
            yield unknown(path, cfg)


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
