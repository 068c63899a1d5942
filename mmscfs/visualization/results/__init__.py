# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Set results of evaluations beside the tables of the SCFS paper."""
