# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What mmdet's detectors find in a data set's images, and what is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from rich.progress import track
from torch import nn

from mmscfs.checkpoint import (
    check_same_model,
    naming,
    read_checkpoint,
    read_meta,
)
from mmscfs.datasets.checks.common import short
from mmscfs.datasets.checks.detection import find_reader, head_classes
from mmscfs.datasets.transforms.loading import (
    LoadImage,
    UnreadableImageError,
    loader_like,
)
from mmscfs.datasets.wrappers import loader_datasets
from mmscfs.ops import check_operators

from .sheet import Cell, Mark, color_of, draw_sheet, fit
from .views import spread, to_rgb_image

ANNOTATED = 'annotated'
PANEL = 300  # px
REMEDY = 'Name the config that wrote it: it lies in the work directory'


class Detections(NamedTuple):
    """Objects in one image, found or annotated."""

    boxes: np.ndarray  #: (x1, y1, x2, y2) in px, shape (n, 4).
    labels: np.ndarray  #: Class indices, shape (n,).
    #: In [0, 1], shape (n,); None for annotations.
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None  #: bool, shape (n, H, W).


class Detector(NamedTuple):
    """A trained detector, and how it gets its images."""

    model: nn.Module  #: With its weights, on the device.
    classes: Sequence[str]  #: The names of its classes.
    channels: int  #: Those of its images.
    load: LoadImage  #: Loads a file as the config's test images.
    steps: Compose  #: All steps of the test images.


# An RGB uint8 image (H, W, 3), and what is in it by name of the detector.
Sample = tuple[np.ndarray, dict[str, Detections]]


def detect(
    cfg: Config,
    checkpoints: Mapping[str, str | Path],
    number: int,
    min_score: float,
) -> tuple[list[Sample], Sequence[str]]:
    """Detect objects in validation images with a detector's checkpoints.

    In a number of images, evenly spread over the data set, by checkpoints of
    one config that have a name each. Lower scores than ``min_score`` are left
    out.

    Returns:
        tuple: The samples, with what is annotated, and the names of the
        classes: for ``draw_detections``.

    Raises:
        OSError, ValueError: An image or a checkpoint cannot be read, or a
            checkpoint is another model's.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    data = DATASETS.build(cfg.val_dataloader.dataset)
    infos = [data.get_data_info(i) for i in spread(len(data), number)]
    steps = cfg.val_dataloader.dataset.pipeline
    load = loader_like(steps, value_range='percentiles')
    samples = [
        (to_rgb_image(load(dict(info))['img']), {ANNOTATED: annotated(info)})
        for info in infos
    ]
    for name, path in checkpoints.items():
        detector = load_detector(cfg, path)
        for info, (_, found) in track(
            list(zip(infos, samples, strict=True)), f'detecting: {name}'
        ):
            path = info['img_path']
            _, found[name] = find_objects(detector, path, min_score)
    return samples, data.metainfo['classes']


def find_objects(
    detector: Detector, path: str, min_score: float
) -> tuple[np.ndarray, Detections]:
    """Detect objects in a file, which is read as the config's test images.

    Returns:
        tuple[np.ndarray, Detections]: The image as RGB uint8 (H, W, 3), and
        the objects of at least ``min_score``.

    Raises:
        UnreadableImageError: The file cannot be read, or has other channels
            than the detector takes.
    """
    from mmdet.apis import inference_detector  # takes seconds to import

    image = detector.load(dict(img_path=path))['img']
    if image.shape[2] != detector.channels:
        raise UnreadableImageError(
            f'cannot use image {path}: it has {image.shape[2]} channels, and '
            f'model.backbone.in_channels={detector.channels}'
        )
    try:
        result = inference_detector(detector.model, path, detector.steps)
    except cv2.error as error:  # of a side that is scaled to less than 1 px
        height, width = image.shape[:2]
        raise UnreadableImageError(
            f'cannot use image {path}: the test pipeline cannot scale its '
            f'{width} x {height} px'
        ) from error
    objects = result.pred_instances.cpu().numpy()
    objects = objects[objects.scores >= min_score]
    return to_rgb_image(image), Detections(
        objects.bboxes, objects.labels, objects.scores, objects.get('masks')
    )


def to_results(found: Detections, classes: Sequence[str]) -> list[dict]:
    """Return what was found as JSON has it, with COCO's boxes and masks.

    Of each object ``class``, ``score``, ``bbox`` (left, top, width and height,
    px), and ``segmentation`` if there are masks.
    """
    from pycocotools.mask import encode  # comes with mmdet

    results = []
    scores = np.array(found.scores).tolist()
    for i, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
        result = {
            'class': classes[int(found.labels[i])],
            'score': round(scores[i], 4),
            'bbox': [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
        }
        if found.masks is not None:
            mask = encode(np.asfortranarray(found.masks[i], np.uint8))
            counts = mask['counts'].decode()
            result['segmentation'] = dict(size=mask['size'], counts=counts)
        results.append(result)
    return results


def load_detector(cfg: Config, path: str | Path) -> Detector:
    """Return a config's detector with the weights of a checkpoint.

    Raises:
        OSError, ValueError: The checkpoint cannot be read, or is another
            model's, or the model needs operators of mmcv that are not
            installed.
    """
    checkpoint = read_checkpoint(path)
    if not cfg.get('test_dataloader'):
        cfg.test_dataloader = cfg.val_dataloader
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    _, dataset = next(loader_datasets(cfg, 'test_dataloader'))
    classes = class_names(cfg, checkpoint, path)
    settings = cfg.model.copy()
    settings.pop('init_cfg', None)
    model = MODELS.build(settings).eval()
    check_operators(model)
    with naming(path):
        check_same_model(
            model.state_dict(), checkpoint, type(model).__name__, REMEDY
        )
    model.load_state_dict(checkpoint.get('state_dict', checkpoint))
    model.to(get_device())
    model.cfg = cfg  # inference_detector looks at it
    return Detector(
        model,
        classes,
        cfg.model.backbone.get('in_channels', 3),
        loader_like(dataset['pipeline'], value_range='percentiles'),
        Compose(dataset['pipeline']),
    )


def class_names(
    cfg: Config, checkpoint: Mapping, path: str | Path
) -> Sequence[str]:
    """Return the names of a detector's classes.

    Those of the checkpoint, which were trained; the config's if it has none.

    Raises:
        ValueError: The checkpoint is not a detector's, or of another number
            of classes than the config's heads.
    """
    state = checkpoint.get('state_dict', checkpoint)
    parts = sorted({str(key).split('.')[0] for key in state})
    if not any(part.endswith('_head') for part in parts):
        raise ValueError(
            f'checkpoint {str(path)!r} is not a detector: it holds '
            f'{", ".join(parts) or "nothing"}. A pre-training is where a '
            'detector starts from: train one by tools/train.py --pretrained, '
            'then name its own checkpoint'
        )
    meta = read_meta(checkpoint).get('dataset_meta')
    names = meta.get('classes') if isinstance(meta, Mapping) else None
    where = f'checkpoint {str(path)!r}'
    if not names:
        where, dataset = next(loader_datasets(cfg, 'test_dataloader'))
        kind, _ = find_reader(dataset['type'])
        metainfo = {**kind.METAINFO, **(dataset.get('metainfo') or {})}
        names = metainfo.get('classes') or ()
    for setting, count in head_classes(cfg.model, 'model', False):
        if count != len(names):
            raise ValueError(
                f'{setting}={count}, but {where} has {len(names)} classes '
                f'({short(names)}). {REMEDY}'
            )
    return names


def annotated(info: Mapping) -> Detections:
    """Return what is annotated in an image, without crowds."""
    from mmdet.datasets.transforms import LoadAnnotations  # takes seconds

    with_mask = all('mask' in instance for instance in info['instances'])
    load = LoadAnnotations(with_mask=with_mask, box_type=None)
    found = load(dict(info, ori_shape=(info['height'], info['width'])))
    kept = ~found['gt_ignore_flags']
    return Detections(
        found['gt_bboxes'][kept],
        found['gt_bboxes_labels'][kept],
        masks=found['gt_masks'].masks[kept] > 0 if with_mask else None,
    )


def draw_detections(
    samples: Sequence[tuple[np.ndarray, Mapping[str, Detections]]],
    classes: Sequence[str],
    title: str = '',
    subtitle: str = '',
    panel: int = PANEL,
) -> np.ndarray:
    """Draw images side by side with what different detectors found.

    Each row is an image, each column a detector; a class has one color.

    Args:
        samples (Sequence): (RGB uint8 image (H, W, 3), detections by name of
            the detector), every image with the same names.
        classes (Sequence[str]): Names of the classes.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.
        panel (int): Width of a column, px. Defaults to 300.

    Returns:
        np.ndarray: RGB uint8 picture.

    Example:
        >>> found = Detections(np.array([[0, 0, 9, 9]]), np.array([0]))
        >>> image = np.zeros((20, 20, 3), np.uint8)
        >>> picture = draw_detections([(image, dict(mine=found))], ['cat'])
    """
    rows: list[list[Cell]] = []
    for image, columns in samples:
        cells = []
        for name, found in columns.items():
            picture = fit(image, panel, panel)
            shares = np.array(found.boxes, float) / (2 * image.shape[1::-1])
            marks = []
            for i, label in enumerate(map(int, found.labels)):
                text, color = classes[label], color_of(label)
                if found.scores is not None:
                    text += f' {100 * float(found.scores[i]):.0f}'
                marks.append(Mark(shares[i], color, text))
                if found.masks is not None:
                    paint(picture, found.masks[i], color)
            above = '' if rows else name
            size = panel, panel
            cells.append(Cell(size, picture, above=above, marks=marks))
        rows.append(cells)
    return draw_sheet(rows, title, subtitle)


def paint(picture: np.ndarray, mask: np.ndarray, color: str) -> None:
    """Mix a color into what a mask shows of a picture, in place."""
    shown = cv2.resize(
        mask.astype(np.uint8),
        picture.shape[1::-1],
        interpolation=cv2.INTER_NEAREST,
    ).astype(bool)
    ink = 255 * np.array(to_rgb(color))
    picture[shown] = 0.5 * picture[shown] + 0.5 * ink
