# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What mmdet's detectors find in a data set's images, and what is there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as rle
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from mmscfs.checkpoint import check_same_model, read_checkpoint
from mmscfs.ops import check_operators

from .detections import Detections
from .views import bgr_to_rgb

ANNOTATED = 'annotated'
Sample = tuple[np.ndarray, dict[str, Detections]]


def build_images(cfg: Config) -> BaseDataset:
    """Return the validation images of a detector's config, a data set."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return DATASETS.build(cfg.val_dataloader.dataset)


def collect(
    cfg: Config,
    checkpoints: Mapping[str, str | Path],
    infos: Sequence[Mapping],
    min_score: float,
    track: Callable[[Iterable, str], Iterable] = lambda items, _: items,
) -> list[Sample]:
    """Detect objects in some images with a detector's checkpoints.

    Args:
        cfg (Config): The detector's config.
        checkpoints (Mapping): Its checkpoint by name.
        infos (Sequence[Mapping]): The data set's entries of the images.
        min_score (float): Of what is kept.
        track (Callable): Follows a loop, as ``rich.progress.track``.
            Defaults to nothing.

    Returns:
        list[Sample]: For ``draw_detections``, with what is annotated.

    Raises:
        OSError, ValueError: An image or a checkpoint cannot be read, or is
            none of this detector's.
    """
    samples = [(read(info), {ANNOTATED: truth(info)}) for info in infos]
    for name, path in checkpoints.items():
        model = load_detector(cfg, path)
        for info, (_, found) in track(
            list(zip(infos, samples, strict=True)), f'detecting: {name}'
        ):
            found[name] = detect(model, info['img_path'], min_score)
    return samples


def read(info: Mapping) -> np.ndarray:
    """Return an image, RGB uint8 (H, W, 3).

    Raises:
        ValueError: It cannot be read.
    """
    image = cv2.imread(info['img_path'])
    if image is None:
        raise ValueError(f'cannot read image {info["img_path"]}')
    return bgr_to_rgb(image)


def load_detector(cfg: Config, path: str | Path) -> nn.Module:
    """Return a detector with the weights of a checkpoint, to test it.

    Raises:
        OSError, ValueError: It cannot be read, is another model's, or needs
            operators of mmcv that are not installed.
    """
    checkpoint = read_checkpoint(path)
    settings = cfg.model.copy()
    settings.pop('init_cfg', None)
    model = MODELS.build(settings).eval()
    check_operators(model)
    remedy = 'Name the config that wrote it: it lies in the work directory'
    try:
        check_same_model(
            model.state_dict(), checkpoint, type(model).__name__, remedy
        )
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    model.load_state_dict(checkpoint['state_dict'])
    model.to(get_device())
    model.cfg = cfg  # inference_detector takes the pipeline from it
    return model


def truth(info: Mapping) -> Detections:
    """What is annotated in an image, without crowds."""
    objects = [o for o in info['instances'] if not o.get('ignore_flag')]
    masks = None
    if objects and all('mask' in o for o in objects):
        size = info['height'], info['width']
        masks = np.stack([decode(o['mask'], *size) for o in objects])
    return Detections(
        np.array([o['bbox'] for o in objects]).reshape(-1, 4),
        np.array([o['bbox_label'] for o in objects], int),
        masks=masks,
    )


def decode(mask: list | Mapping, height: int, width: int) -> np.ndarray:
    """Return an annotated mask, polygons or run lengths, as bool (H, W)."""
    if isinstance(mask, list):
        mask = rle.merge(rle.frPyObjects(mask, height, width))
    elif isinstance(mask['counts'], list):
        mask = rle.frPyObjects(mask, height, width)
    return rle.decode(mask).astype(bool)


def detect(model: nn.Module, image: str, min_score: float) -> Detections:
    """What a detector finds in an image file."""
    found = inference_detector(model, image).pred_instances.cpu().numpy()
    found = found[found.scores >= min_score]
    return Detections(
        found.bboxes, found.labels, found.scores, found.get('masks')
    )
