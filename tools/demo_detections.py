# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the demo's detectors find in unseen scenes."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from mmscfs.engine import prepare_config
from mmscfs.visualization import draw_detections, spread, write_png
from mmscfs.visualization.detectors import build_images, collect

MIN_SCORE = 0.3  # of what is drawn


def draw(
    cfg: Config, checkpoints: Mapping[str, Path], path: Path, count: int = 4
) -> None:
    """Draw annotations and detections of some unseen scenes.

    Args:
        cfg (Config): The detector's config.
        checkpoints (Mapping[str, Path]): Its checkpoint by column title.
        path (Path): PNG to write.
        count (int): Number of scenes. Defaults to 4.
    """
    prepare_config(cfg)
    data = build_images(cfg)
    infos = [data.get_data_info(i) for i in spread(len(data), count)]
    samples = collect(cfg, checkpoints, infos, MIN_SCORE)
    picture = draw_detections(
        samples,
        data.metainfo['classes'],
        'Detections in unseen scenes',
        f'class and score in percent, from {100 * MIN_SCORE:.0f} on',
    )
    write_png(picture, path)
