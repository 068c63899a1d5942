# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.colors import to_rgb

from .sheet import (
    HEAD,
    HEADING,
    MARGIN,
    TAG,
    Sheet,
    color_of,
    fit,
    resize,
    shorten,
    title_width,
)

PANEL = 300  # px
GAP = 10  # px
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


def draw_detections(
    samples: Sequence[tuple[np.ndarray, Mapping[str, Detections]]],
    classes: Sequence[str],
    title: str = '',
    subtitle: str = '',
) -> np.ndarray:
    """Draw images side by side with what different detectors found.

    One row an image, one column a detector; a class has one colour.

    Args:
        samples (Sequence): (RGB uint8 image (H, W, 3), detections by name of
            the detector), every image with the same names.
        classes (Sequence[str]): Names of the classes.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    names = list(samples[0][1])
    heights = [fit(image, PANEL, PANEL)[1] for image, _ in samples]
    width = 2 * MARGIN + len(names) * (PANEL + GAP) - GAP
    width = max(width, title_width(title, subtitle))
    sheet = Sheet(
        width, HEAD + NAMES + sum(heights) + GAP * (len(samples) - 1) + MARGIN
    )
    sheet.title(title, subtitle)
    for i, name in enumerate(names):
        left = MARGIN + i * (PANEL + GAP)
        text = shorten(name, PANEL, HEADING, 'bold')
        sheet.text(left, HEAD, text, HEADING, weight='bold')
        top = HEAD + NAMES
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
    width, height = fit(image, PANEL, height)
    # They differ where an image is narrower than a px of the picture.
    across, down = width / image.shape[1], height / image.shape[0]
    picture = resize(image, width, height)
    if found.masks is not None:
        for mask, label in zip(found.masks, found.labels, strict=True):
            tint(picture, mask, color_of(int(label)))
    left, top, _ = sheet.image(picture, left, top, PANEL, height)
    for i, (box, label) in enumerate(
        zip(found.boxes, found.labels, strict=True)
    ):
        color = color_of(int(label))
        x1, y1, x2, y2 = np.asarray(box, float) * ([across, down] * 2)
        # Nothing is drawn beyond the image.
        x1, x2 = (left + min(max(x, 2), width - 2) for x in (x1, x2))
        y1, y2 = (top + min(max(y, 2), height - 2) for y in (y1, y2))
        sheet.frame((x1, y1, x2, y2), color)
        text = classes[int(label)]
        if found.scores is not None:
            text += f' {100 * float(found.scores[i]):.0f}'
        sheet.tag(
            (x1, y1, x2, y2),
            text,
            color,
            above=y1 - TAG >= top,
            right=left + width - 1,
        )


def tint(image: np.ndarray, mask: np.ndarray, color: str) -> None:
    """Colour an image (H, W, 3) in place where a mask (h, w) is."""
    mask = cv2.resize(
        mask.astype(np.uint8),
        image.shape[1::-1],
        interpolation=cv2.INTER_NEAREST,
    ).astype(bool)
    ink = 255 * np.array(to_rgb(color))
    image[mask] = (0.5 * image[mask] + 0.5 * ink).astype(np.uint8)
