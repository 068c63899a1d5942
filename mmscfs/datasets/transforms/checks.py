# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Checks of MultiCrop's settings, with errors that name them."""

import math
from collections.abc import Collection
from numbers import Number
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def check_whole(name: str, value: Any, low: int) -> None:
    """Check that ``value`` is a whole number >= low."""
    if type(value) is not int or value < low:
        raise ValueError(
            f'MultiCrop: {name}={value} must be a whole number >= {low}'
        )


def check_within(name: str, value: Any, low: float, high: float) -> None:
    """Check that ``value`` is a number low <= value <= high."""
    if not (_is_number(value) and low <= value <= high):
        raise ValueError(
            f'MultiCrop: {name}={value} must lie in [{low}, {high}]'
        )


def check_flag(name: str, value: Any) -> None:
    """Check that ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f'MultiCrop: {name}={value!r} must be True or False')


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that ``value`` is one of the choices."""
    if not (isinstance(value, str) and value in choices):
        named = ' or '.join(map(repr, choices))
        raise ValueError(f'MultiCrop: {name}={value!r} must be {named}')


def probabilities(name: str, value: Any) -> tuple:
    """Return ``value`` as one probability for each kind of view, or raise."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ValueError(
            f'MultiCrop: {name}={value} must be three values: first global, '
            'second global and local views'
        )
    for i, probability in enumerate(value):
        check_within(f'{name}[{i}]', probability, 0, 1)
    return tuple(value)


def interval(name: str, value: Any, low: float, high: float) -> tuple:
    """Return ``value`` as a finite pair low < a <= b <= high, or raise."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not (
        len(pair) == 2
        and all(map(_is_number, pair))
        and low < pair[0] <= pair[1] <= high
        and pair[1] < math.inf
    ):
        raise ValueError(
            f'MultiCrop: {name}={value} must be a pair (a, b) of numbers '
            f'with {low} < a <= b <= {high}'
        )
    return pair
