# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One page of html that says how runs are doing."""

from .health import Monitor
from .page import make_page, stop_reloading

__all__ = [
    'Monitor',
    'make_page',
    'stop_reloading',
]
