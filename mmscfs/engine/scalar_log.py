# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend
from mmengine.visualization.vis_backend import force_init_env
from mmpretrain.registry import VISBACKENDS

from mmscfs.visualization import write_png


@VISBACKENDS.register_module()
class SafeLocalVisBackend(LocalVisBackend):
    """mmengine's files of scalars and pictures, whose loss ends no run.

    On a full disk a line or a picture is missing; the run, whose state is in
    memory alone then, goes on (see ``SafeCheckpointHook``). A picture is there
    whole or not at all, for whoever looks while the run goes on.
    """

    def _dump(
        self, value_dict: dict, file_path: str, file_format: str
    ) -> None:
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            warn(f'A line of scalars was not written: {error}.')

    @force_init_env
    def add_image(
        self, name: str, image: np.ndarray, step: int = 0, **_: Any
    ) -> None:
        """Write an RGB uint8 image (H, W, 3) to ``<name>_<step>.png``."""
        folder = Path(self._img_save_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_png(image, folder / f'{name}_{step}.png')
        except OSError as error:
            warn(f'A picture was not written: {error}.')


def warn(text: str) -> None:
    """Say it in the run's log."""
    print_log(text, logger='current', level=logging.WARNING)
