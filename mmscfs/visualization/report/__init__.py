# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One page of html that says how runs are doing."""

from .page import make_page
from .reading import RunLog, read_log, watched_files

__all__ = ['RunLog', 'make_page', 'read_log', 'watched_files']
