# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare finished detection runs with each other and with the paper."""
