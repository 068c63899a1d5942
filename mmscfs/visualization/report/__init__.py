# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read the work directories of runs."""

from .reading import RunLog, Start, read_log, watched_files

__all__ = ['RunLog', 'Start', 'read_log', 'watched_files']
