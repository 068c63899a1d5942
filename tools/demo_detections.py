# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the demo's detectors find in unseen scenes."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine import prepare_config
from mmscfs.visualization import Detections, draw_detections

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
    init_default_scope('mmdet')
    prepare_config(cfg)
    data = DATASETS.build(cfg.val_dataloader.dataset)
    classes = data.metainfo['classes']
    # One more than an even step: the main digits follow each other in turn.
    step = len(data) // count + 1
    infos = [data.get_data_info(i) for i in range(0, len(data), step)]
    samples = []
    for info in infos:
        image = cv2.imread(info['img_path'])
        samples.append(
            (
                cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
                {'annotated': truth(info)},
            )
        )
    for name, checkpoint in checkpoints.items():
        model = MODELS.build(cfg.model).eval()
        model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
        model.cfg = cfg  # inference_detector takes the pipeline from it
        for info, (_, found) in zip(infos, samples, strict=True):
            found[name] = detect(model, info['img_path'])
    draw_detections(samples, classes, path, 'Detections in unseen scenes')


def truth(info: dict) -> Detections:
    """What is annotated in a scene."""
    objects = info['instances']
    return Detections(
        np.array([item['bbox'] for item in objects]).reshape(-1, 4),
        np.array([item['bbox_label'] for item in objects], int),
    )


def detect(model, image: str) -> Detections:
    """What a detector finds in an image file."""
    found = inference_detector(model, image).pred_instances.numpy()
    found = found[found.scores >= MIN_SCORE]
    return Detections(
        found.bboxes, found.labels, found.scores, found.get('masks')
    )
