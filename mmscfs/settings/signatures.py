# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The arguments of registered types, and the source of the packages.

What cannot be told counts as taking any argument.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import Registry, root


class Arguments(NamedTuple):
    """The arguments of a type, and whether it may take others too."""

    names: frozenset[str]
    is_open: bool

    def __or__(self, other: 'Arguments') -> 'Arguments':
        return Arguments(
            self.names | other.names, self.is_open or other.is_open
        )


ANY = Arguments(frozenset(), True)


@cache
def package_folder(package: str) -> Path | None:
    """Return where a package lies, None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


@cache
def read_texts(package: str) -> dict[Path, str]:
    """Return the source files of a package, without its configs and tools."""
    folder = package_folder(package)
    if folder is None:
        return {}
    return {
        path: path.read_text(encoding='utf-8', errors='replace')
        for path in folder.rglob('*.py')
        if not {'.mim', 'configs'} & set(path.relative_to(folder).parts)
    }


def find_types(kind: str, scope: str) -> Iterator[Any]:
    """Yield what a type of a config may stand for, in any registry.

    The type is a name, with or without a scope, or the whole path of a class.
    """
    name = kind if '.' in kind else f'{scope}.{kind}'
    if package_folder(name.split('.')[0]) is None:
        return
    for registry in vars(root).values():
        if isinstance(registry, Registry):
            try:
                found = registry.get(name)
            except ImportError:  # its package lacks one that it needs
                continue
            if callable(found):
                yield found


@cache
def arguments_of_type(kind: str, scope: str) -> Arguments:
    """Return the arguments of what is registered by a name.

    Example:
        >>> 'depth' in arguments_of_type('ResNet', 'mmpretrain').names
        True
    """
    found = {id(each): each for each in find_types(kind, scope)}
    return reduce(or_, map(arguments_of, found.values())) if found else ANY


def arguments_of(kind: Any) -> Arguments:
    """Return the arguments of a class or function.

    A class's are those of its ``__init__``, and of that of the next class in
    its order of resolution as long as ``**kwargs`` go there.
    """
    names: frozenset[str] = frozenset()
    for part in inspect.getmro(kind) if isinstance(kind, type) else (kind,):
        own = vars(part) if isinstance(part, type) else dict(__init__=part)
        if part is object:
            return Arguments(names, False)
        if '__new__' in own:
            return ANY
        if '__init__' not in own:
            continue
        try:
            parameters = inspect.signature(own['__init__']).parameters
        except (TypeError, ValueError):  # of C
            return ANY
        kinds = {name: each.kind.name for name, each in parameters.items()}
        names |= {n for n, kind in kinds.items() if 'VAR' not in kind}
        names -= {'self'}
        kwargs = [n for n, kind in kinds.items() if kind == 'VAR_KEYWORD']
        if not kwargs:
            return Arguments(names, False)
        taken, goes_up = passed_on(own['__init__'], *kwargs)
        names |= taken.names
        if taken.is_open or not goes_up:
            return Arguments(names, taken.is_open)
    return Arguments(names, True)


def passed_on(init: Any, kwargs: str) -> tuple[Arguments, bool]:
    """Return what an ``__init__`` takes of its ``**kwargs``.

    What it takes out by name, and what it calls with them; anything, if it
    does something else with them.

    Returns:
        tuple[Arguments, bool]: That, and whether they go to
        ``super().__init__``.
    """
    init = inspect.unwrap(init)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError, TypeError):
        return ANY, False
    found, goes_up = Arguments(frozenset(), False), False
    uses, known = 0, 0
    for node in ast.walk(tree):
        uses += isinstance(node, ast.Name) and node.id == kwargs
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = [ast.unparse(k.value) for k in node.keywords if not k.arg]
        if kwargs in given:
            known += 1
            if called == 'super().__init__':
                goes_up = True
            else:
                other = init.__globals__.get(called)
                found |= arguments_of(other) if callable(other) else ANY
        elif called in (f'{kwargs}.pop', f'{kwargs}.get'):
            name = node.args[0]
            if not isinstance(name, ast.Constant):
                continue
            known += 1
            found |= Arguments(frozenset([str(name.value)]), False)
    return (found if 0 < uses == known else ANY), goes_up
