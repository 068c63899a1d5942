# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the checks of data say."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log


def short(items: Sequence, limit: int = 10) -> str:
    """List a few items, and say how many there are."""
    text = ', '.join(map(repr, items[:limit]))
    return text if len(items) <= limit else f'{text}, ... ({len(items)})'


def cut(value: Any) -> str:
    """Return the beginning of a value, for an error."""
    text = short([value])
    return text if len(text) <= 300 else f'{text[:300]}...'


def warn(text: str) -> None:
    """Warn in the run's log."""
    print_log(text, logger='current', level=logging.WARNING)
