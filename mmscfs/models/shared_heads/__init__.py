# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Parts of C4 detectors. Needs mmdet, so ``import mmscfs`` leaves it out."""

from mmscfs.compatibility import check_package

check_package('mmdet')

from .shared_res_stage import SharedResStage  # noqa: E402

__all__ = ['SharedResStage']
