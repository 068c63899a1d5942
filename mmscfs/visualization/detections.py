# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What mmdet's detectors find in a data set's images, and what is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from rich.progress import track
from torch import nn

from mmscfs.checkpoint import check_same_model, naming, read_checkpoint
from mmscfs.datasets.transforms.loading import LoadImage, loader_like
from mmscfs.ops import check_operators

from .sheet import HEAD, HEADING, MARGIN, Sheet, color_of, fit
from .views import spread, to_rgb_image

ANNOTATED = 'annotated'
PANEL, GAP = 300, 10  # px
NAMES = 26  # px, of the detectors'


class Detections(NamedTuple):
    """Objects in one image, found or annotated.

    Attributes:
        boxes (np.ndarray): (x1, y1, x2, y2) in px, shape (n, 4).
        labels (np.ndarray): Class indices, shape (n,).
        scores (np.ndarray | None): In [0, 1], shape (n,); None for
            annotations. Defaults to None.
        masks (np.ndarray | None): bool, shape (n, H, W). Defaults to None.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None


# An RGB uint8 image (H, W, 3), and what is in it by name of the detector.
Sample = tuple[np.ndarray, dict[str, Detections]]


def detect(
    cfg: Config,
    checkpoints: Mapping[str, str | Path],
    number: int,
    min_score: float,
) -> tuple[list[Sample], Sequence[str]]:
    """Detect objects in validation images with a detector's checkpoints.

    Args:
        cfg (Config): The detector's config.
        checkpoints (Mapping): Its checkpoint by name.
        number (int): Images, evenly spread over the data set.
        min_score (float): The least score of what is kept.

    Returns:
        tuple: The samples, with what is annotated, and the names of the
        classes: for ``draw_detections``.

    Raises:
        OSError, ValueError: An image or a checkpoint cannot be read, or a
            checkpoint is another model's.
    """
    from mmdet.apis import inference_detector  # takes seconds to import

    init_default_scope(cfg.get('default_scope', 'mmdet'))
    data = DATASETS.build(cfg.val_dataloader.dataset)
    infos = [data.get_data_info(i) for i in spread(len(data), number)]
    steps = cfg.val_dataloader.dataset.pipeline
    load = loader_like(steps) or LoadImage(value_range='percentiles')
    samples = [
        (to_rgb_image(load(dict(info))['img']), {ANNOTATED: annotated(info)})
        for info in infos
    ]
    for name, path in checkpoints.items():
        model = load_detector(cfg, path)
        for info, (_, found) in track(
            list(zip(infos, samples, strict=True)), f'detecting: {name}'
        ):
            result = inference_detector(model, info['img_path'])
            objects = result.pred_instances.cpu().numpy()
            objects = objects[objects.scores >= min_score]
            found[name] = Detections(
                objects.bboxes,
                objects.labels,
                objects.scores,
                objects.get('masks'),
            )
    return samples, data.metainfo['classes']


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
    with naming(path):
        check_same_model(
            model.state_dict(), checkpoint, type(model).__name__, remedy
        )
    model.load_state_dict(checkpoint['state_dict'])
    model.to(get_device())
    model.cfg = cfg  # inference_detector takes the pipeline from it
    return model


def annotated(info: Mapping) -> Detections:
    """Return what is annotated in an image, without crowds."""
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
    import pycocotools.mask as rle  # comes with mmdet

    if isinstance(mask, list):
        mask = rle.merge(rle.frPyObjects(mask, height, width))
    elif isinstance(mask['counts'], list):
        mask = rle.frPyObjects(mask, height, width)
    return rle.decode(mask).astype(bool)


def draw_detections(
    samples: Sequence[tuple[np.ndarray, Mapping[str, Detections]]],
    classes: Sequence[str],
    title: str = '',
    subtitle: str = '',
) -> np.ndarray:
    """Draw images side by side with what different detectors found.

    Each row is an image, each column a detector; a class has one color.

    Args:
        samples (Sequence): (RGB uint8 image (H, W, 3), detections by name of
            the detector), every image with the same names.
        classes (Sequence[str]): Names of the classes.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.

    Example:
        >>> found = Detections(np.array([[0, 0, 9, 9]]), np.array([0]))
        >>> image = np.zeros((20, 20, 3), np.uint8)
        >>> picture = draw_detections([(image, dict(mine=found))], ['cat'])
    """
    names = list(samples[0][1])
    heights = [fit(image, PANEL, PANEL).shape[0] for image, _ in samples]
    width = 2 * MARGIN + len(names) * (PANEL + GAP) - GAP
    height = HEAD + NAMES + sum(heights) + GAP * (len(samples) - 1) + MARGIN
    sheet = Sheet(width, height, title, subtitle)
    for i, name in enumerate(names):
        left, top = MARGIN + i * (PANEL + GAP), HEAD + NAMES
        sheet.text(left, HEAD, name, HEADING, PANEL, weight='bold')
        for (image, found), height in zip(samples, heights, strict=True):
            draw_objects(sheet, image, found[name], classes, left, top, height)
            top += height + GAP
    return sheet.render()


def draw_objects(
    sheet: Sheet,
    image: np.ndarray,
    found: Detections,
    classes: Sequence[str],
    left: int,
    top: int,
    height: int,
) -> None:
    """Draw an image with boxes, masks, names and scores."""
    picture = fit(image, PANEL, height)
    if found.masks is not None:
        for mask, label in zip(found.masks, found.labels, strict=True):
            shown = cv2.resize(
                mask.astype(np.uint8),
                picture.shape[1::-1],
                interpolation=cv2.INTER_NEAREST,
            ).astype(bool)
            ink = 255 * np.array(to_rgb(color_of(int(label))))
            picture[shown] = 0.5 * picture[shown] + 0.5 * ink
    place = sheet.image(picture, left, top, PANEL, height)
    shares = np.array(found.boxes, float) / (2 * image.shape[1::-1])
    for i, (box, label) in enumerate(zip(shares, found.labels, strict=True)):
        text = classes[int(label)]
        if found.scores is not None:
            text += f' {100 * float(found.scores[i]):.0f}'
        sheet.outline(place, box, color_of(int(label)), text, above=True)
