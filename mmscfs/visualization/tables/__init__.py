# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tables of scores beside the paper's: printed, and as files."""

from .table import Row, Table, rank
from .writing import publish, write_tables

__all__ = [
    'Row',
    'Table',
    'publish',
    'rank',
    'write_tables',
]
