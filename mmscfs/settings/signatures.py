# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The arguments of registered types, read from their source.

Nothing is imported: mmdet alone takes seconds. What the source does not tell
counts as taking any argument.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

# Where a type is looked for beside the config's scope.
ROOT = ('mmengine', 'mmcv', 'mmscfs')
# Scopes in which several packages register.
SCOPES = {'mmpretrain': ('mmpretrain', 'mmscfs'), 'mmengine': ROOT}
# Bases that add no arguments.
PLAIN = frozenset(('object', 'ABC', 'Module', 'Dataset', 'Generic', 'Enum'))
DEFINED = re.compile(r'^(?:class|def) (\w+)', re.M)
REGISTERED = re.compile(
    r'\.register_module\(([^)]*)\)+\n(?:@.*\n)*(?:class|def) (\w+)'
)
QUOTED = re.compile(r'[\'"]([\w.-]+)[\'"]')
Definition = ast.ClassDef | ast.FunctionDef


class Source(NamedTuple):
    """A class or function, and the module that defines it."""

    package: str
    path: Path
    node: Definition

    def find(self, expression: ast.expr) -> 'Source | None':
        """Return what a name in this module stands for, if it is known."""
        if not isinstance(expression, ast.Name):
            return None
        module = read_module(self.path)
        name = expression.id
        # A class may be named like its base, which is then imported.
        if module.definitions.get(name) not in (None, self.node):
            return self._replace(node=module.definitions[name])
        if name not in module.imports:
            return None
        package, name = module.imports[name]
        package = package or self.package
        files = read_package(package).get(name, [])
        if len(files) > 1:
            files = [
                path for path, _ in read_registered(package).get(name, ())
            ]
        if len(files) != 1:
            return None
        definition = read_module(files[0]).definitions[name]
        return Source(package, files[0], definition)


class Module(NamedTuple):
    """What a module defines; package and name of what it imports.

    The package is '' for its own files.
    """

    definitions: dict[str, Definition]
    imports: dict[str, tuple[str, str]]


@cache
def package_folder(package: str) -> Path | None:
    """Return where a package, or one module, lies; None if not installed."""
    try:
        spec = find_spec(package)  # of a top level: nothing is imported
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path.parent if path.name == '__init__.py' else path


@cache
def read_texts(package: str) -> dict[Path, str]:
    """Return the source files of a package, without its configs and tools."""
    folder = package_folder(package)
    if folder is None or folder.suffix == '.so':
        return {}
    paths = [folder] if folder.is_file() else folder.rglob('*.py')
    return {
        path: path.read_text(encoding='utf-8', errors='replace')
        for path in paths
        if not {'.mim', 'configs'} & set(path.parts[len(folder.parts) :])
    }


@cache
def read_package(package: str) -> dict[str, list[Path]]:
    """Return the files that define each class and function of a package."""
    found: dict[str, list[Path]] = {}
    for path, text in read_texts(package).items():
        for name in DEFINED.findall(text):
            found.setdefault(name, []).append(path)
    return found


@cache
def read_registered(package: str) -> dict[str, list[tuple[Path, str]]]:
    """Return file and name of what a package registers, by type."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for path, text in read_texts(package).items():
        if '.register_module(' not in text:
            continue
        for words, name in REGISTERED.findall(text):
            for alias in QUOTED.findall(words) or [name]:
                found.setdefault(alias, []).append((path, name))
    return found


@cache
def read_module(path: Path) -> Module:
    """Read the definitions and imports of a file."""
    tree = ast.parse(path.read_text(encoding='utf-8', errors='replace'))
    return Module(
        {
            node.name: node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        },
        {
            alias.asname or alias.name: (
                '' if node.level else (node.module or '').split('.')[0],
                alias.name,
            )
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        },
    )


def find_types(
    kind: str, scope: str, modules: tuple[str, ...] = ()
) -> list[Source]:
    """Return what a type of a config may stand for, one for each package.

    The type is a name, with or without a scope, or the whole path of a class;
    ``modules`` are further packages that register, of ``custom_imports``.
    """
    first, _, name = kind.rpartition('.')
    scope = first.split('.')[0] or scope
    own = SCOPES.get(scope, (scope,))
    return [
        Source(package, path, definition)
        for package in dict.fromkeys((*own, *modules, *ROOT))
        for path, defined in read_registered(package).get(name, ())
        if (definition := read_module(path).definitions.get(defined))
    ]


class Arguments(NamedTuple):
    """The arguments of a type, and whether it may take others too."""

    names: frozenset[str]
    is_open: bool

    def __or__(self, other: 'Arguments') -> 'Arguments':
        return Arguments(
            self.names | other.names, self.is_open or other.is_open
        )


NONE = Arguments(frozenset(), False)
ANY = Arguments(frozenset(), True)


def arguments_of_type(
    kind: Any, scope: str, modules: tuple[str, ...] = ()
) -> Arguments:
    """Return the arguments that a type takes, given by name or itself.

    Example:
        >>> 'depth' in arguments_of_type('ResNet', 'mmpretrain').names
        True
    """
    if not isinstance(kind, str):
        return arguments_of_object(kind)
    found = [arguments(s) for s in find_types(kind, scope, modules)]
    return reduce(or_, found) if found else ANY


def arguments_of_object(kind: Any) -> Arguments:
    """Return the arguments of a class or function that is imported."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return ANY
    return Arguments(
        frozenset(p.name for p in parameters),
        any(p.kind == p.VAR_KEYWORD for p in parameters),
    )


def arguments(source: Source) -> Arguments:
    """Return the arguments of a class or function."""
    node = source.node
    if isinstance(node, ast.FunctionDef):
        return Arguments(names_of(node.args), bool(node.args.kwarg))
    return taken(tuple(resolution_order(source)))


def names_of(arguments: ast.arguments) -> frozenset[str]:
    """Return the names of named arguments."""
    named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    return frozenset(a.arg for a in named) - {'self', 'cls'}


def resolution_order(source: Source) -> list[Source | None]:
    """Return a class and its bases; None stands for one that is not known."""
    order: list[Source | None] = [source]
    for expression in getattr(source.node, 'bases', ()):
        name = ast.unparse(expression).split('[')[0].split('.')[-1]
        base = source.find(expression)
        if base is not None:
            order += resolution_order(base)
        elif name not in PLAIN:
            order.append(None)
    # One that several share comes after all of them.
    return [s for i, s in enumerate(order) if s not in order[i + 1 :]]


def taken(order: tuple[Source | None, ...]) -> Arguments:
    """Return the arguments of the first ``__init__`` of classes, in order."""
    for i, source in enumerate(order):
        if source is None:
            return ANY
        body = source.node.body
        if any(
            'dataclass' in ast.unparse(d) for d in source.node.decorator_list
        ):
            fields = [n.target for n in body if isinstance(n, ast.AnnAssign)]
            own = frozenset(f.id for f in fields if isinstance(f, ast.Name))
            rest = order[i + 1 :]
            return Arguments(own, False) | (taken(rest) if rest else NONE)
        methods = {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
        if '__new__' in methods:
            return ANY
        if init := methods.get('__init__'):
            found = Arguments(names_of(init.args), False)
            if init.args.kwarg:
                rest = passed_on(init, source, order[i + 1 :])
                found = reduce(or_, rest, found)
            return found
    return ANY


def passed_on(
    init: ast.FunctionDef, source: Source, bases: tuple[Source | None, ...]
) -> Iterator[Arguments]:
    """Yield what each use of ``**kwargs`` in an ``__init__`` takes of them."""
    kwargs = init.args.kwarg.arg  # type: ignore[union-attr]
    known = 0
    for node in ast.walk(init):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if any(
            k.arg is None and is_name(k.value, kwargs) for k in node.keywords
        ):
            known += 1
            yield of_call(called, source, bases)
        elif (
            isinstance(called, ast.Attribute)
            and is_name(called.value, kwargs)
            and called.attr in ('pop', 'get', 'setdefault')
            and isinstance(node.args[0], ast.Constant)
        ):
            known += 1
            yield Arguments(frozenset([str(node.args[0].value)]), False)
    uses = sum(is_name(node, kwargs) for node in ast.walk(init))
    if not uses or uses > known:  # it does something else with them
        yield ANY


def of_call(
    called: ast.expr, source: Source, bases: tuple[Source | None, ...]
) -> Arguments:
    """Return the arguments of what an ``__init__`` calls."""
    text = ast.unparse(called)
    own = ('super().__init__', f'super({source.node.name}, self).__init__')
    if text.startswith('super('):
        return taken(bases) if text in own else ANY
    if isinstance(called, ast.Attribute) and called.attr == '__init__':
        called = called.value
    found = source.find(called)
    return arguments(found) if found else ANY


def is_name(node: ast.AST, name: str) -> bool:
    """Whether a node is a variable."""
    return isinstance(node, ast.Name) and node.id == name
