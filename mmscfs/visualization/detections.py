# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLORS = matplotlib.colormaps['tab10']


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
    path: str | Path,
    title: str = '',
) -> None:
    """Draw images side by side with what different detectors found, to a PNG.

    One row an image, one column a detector; a class has one colour.

    Args:
        samples (Sequence): (RGB uint8 image (H, W, 3), detections by name of
            the detector), every image with the same names.
        classes (Sequence[str]): Names of the classes.
        path (str | Path): File to write.
        title (str): Defaults to none.
    """
    names = list(samples[0][1])
    figure = Figure(
        figsize=(2.1 * len(names) + 0.2, 2.1 * len(samples) + 0.5),
        layout='constrained',
    )
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(samples), len(names), squeeze=False)
    for row, (image, found) in zip(axes, samples, strict=True):
        for axis, name in zip(row, names, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.imshow(image)
            draw_objects(axis, found[name], classes)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=8)
    figure.savefig(path, dpi=130)


def draw_objects(axis, found: Detections, classes: Sequence[str]) -> None:
    """Draw boxes, masks, names and scores over an axis that shows an image."""
    for i, (box, label) in enumerate(
        zip(found.boxes, found.labels, strict=True)
    ):
        color = COLORS(int(label) % COLORS.N)
        if found.masks is not None:
            tint = np.zeros((*found.masks[i].shape, 4))
            tint[found.masks[i].astype(bool)] = (*color[:3], 0.5)
            axis.imshow(tint)
        left, top, right, bottom = map(float, box)
        axis.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=color,
                linewidth=1.2,
            )
        )
        text = classes[int(label)]
        if found.scores is not None:
            text += f' {100 * float(found.scores[i]):.0f}'
        axis.text(
            left,
            top,
            text,
            fontsize=6,
            color='white',
            verticalalignment='bottom',
            bbox=dict(facecolor=color, edgecolor='none', pad=0.6),
            clip_on=True,
        )
