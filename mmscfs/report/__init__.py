# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""One HTML page that says how runs are doing."""

from .page import make_page
from .verdict import Verdict, judge

__all__ = ['Verdict', 'judge', 'make_page']
