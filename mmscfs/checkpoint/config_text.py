# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read a dumped config without executing it: files are not trusted."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

MAX_LENGTH = 2**20  # characters; the longest of mmdet has 50,000


def flatten(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the settings of a config by their dotted names.

    Lists of plain values stay whole.
    """
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f'{name}.{key}' if name else str(key))
    elif isinstance(value, list) and any(
        isinstance(item, (Mapping, list)) for item in value
    ):
        for number, item in enumerate(value):
            yield from flatten(item, f'{name}.{number}')
    else:
        yield name, value


def parse_config(text: str) -> dict:
    """Read the assignments of a dumped config without executing it.

    Whatever is neither a literal nor ``dict(...)`` stays text; tuples become
    lists.

    Raises:
        ValueError: It is not Python, or longer or deeper than a config is.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f'not a dumped config: {len(text)} characters, more than '
            f'{MAX_LENGTH}'
        )
    try:
        return {
            node.targets[0].id: _value(node.value)
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
        }
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        # The last two if it is nested too deep for Python's own parser.
        raise ValueError(
            f'not a dumped config: {error or type(error).__name__}'
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict):
        return {
            _value(key): _value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
    ):
        entries = _value(node.args[0]) if node.args else {}
        return entries | {k.arg: _value(k.value) for k in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
