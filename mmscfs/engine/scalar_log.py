# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging

from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import VISBACKENDS


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's file of scalars, whose loss does not end a run.

    On a full disk a line is missing; the run, whose state is in memory
    alone then, goes on (see ``SafeCheckpointHook``).
    """

    def _dump(self, value_dict: dict, file_path: str, file_format: str):
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            print_log(
                f'A line of scalars was not written: {error}.',
                logger='current',
                level=logging.WARNING,
            )
