# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One page of html that says how runs are doing."""

from .health import Monitor
from .page import make_page, stop_reloading
from .reading import RunLog, Start, read_log, watched_files

__all__ = [
    'Monitor',
    'RunLog',
    'Start',
    'make_page',
    'read_log',
    'stop_reloading',
    'watched_files',
]
