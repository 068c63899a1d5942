# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw views beside the images that they show."""

from collections.abc import Sequence

import numpy as np

from .sheet import (
    BODY,
    GREY,
    HEAD,
    MARGIN,
    SMALL,
    Sheet,
    color_of,
    fit,
    shorten,
    title_width,
)
from .views import NUM_GLOBAL, ImageViews, View

GLOBAL, LOCAL = 224, 96  # px of a view: those of most configs
CAPTION = 30  # px, two lines below a view
GAP = 14  # px
SOURCE = 336  # px, the greatest width of an image
NAME = 22  # px, above an image


def draw_views(
    samples: Sequence[ImageViews], title: str = '', subtitle: str = ''
) -> np.ndarray:
    """Draw images with the boxes of their views, and these beside them.

    Args:
        samples (Sequence[ImageViews]): At least one.
        title (str): Defaults to none.
        subtitle (str): What the samples have in common. Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    sources = [
        fit(sample.source, SOURCE, GLOBAL)[0]
        for sample in samples
        if sample.source is not None
    ]
    source = max(sources, default=0)
    count = max(len(sample.views) for sample in samples)
    num_global = min(count, NUM_GLOBAL)
    columns = -(-(count - num_global) // 2)
    width = MARGIN + (source + GAP if source else 0) + MARGIN
    width += num_global * (GLOBAL + GAP) + columns * (LOCAL + GAP)
    width = max(width, title_width(title, subtitle))
    step = NAME + GLOBAL + CAPTION + GAP
    sheet = Sheet(width, HEAD + len(samples) * step)
    sheet.title(title, subtitle)
    for i, sample in enumerate(samples):
        draw_row(sheet, sample, HEAD + i * step, source)
    return sheet.render()


def draw_row(sheet: Sheet, sample: ImageViews, top: int, source: int) -> None:
    """Draw one image, ``source`` px wide at most, and its views."""
    left = MARGIN
    name = shorten(sample.name, max(source, GLOBAL), BODY)
    sheet.text(left, top, name, BODY, color=GREY)
    top += NAME
    if source and sample.source is not None:
        width, height = fit(sample.source, source, GLOBAL)
        x, y, scale = sheet.image(sample.source, left, top, width, height)
        draw_boxes(sheet, sample.views, x, y, scale)
    left += source + GAP if source else 0
    for n in range(min(NUM_GLOBAL, len(sample.views))):
        draw_view(sheet, sample, n, left, top, GLOBAL)
        left += GLOBAL + GAP
    columns = -(-(len(sample.views) - NUM_GLOBAL) // 2)
    for n in range(NUM_GLOBAL, len(sample.views)):
        row, column = divmod(n - NUM_GLOBAL, columns)
        draw_view(
            sheet,
            sample,
            n,
            left + column * (LOCAL + GAP),
            top + row * (GLOBAL - LOCAL),
            LOCAL,
        )


def label(n: int) -> str:
    """Return what a view is called on its box."""
    return f'G{n + 1}' if n < NUM_GLOBAL else str(n + 1 - NUM_GLOBAL)


def draw_boxes(
    sheet: Sheet, views: Sequence[View], left: int, top: int, scale: float
) -> None:
    """Draw where the views lie in their image, small ones above large."""
    for n, view in enumerate(views):
        if view.box is not None:
            x1, y1, x2, y2 = (scale * edge for edge in view.box)
            # Inside, so that a view of the whole image shows.
            box = (left + x1 + 2, top + y1 + 2, left + x2 - 2, top + y2 - 2)
            sheet.frame(box, color_of(n))
            sheet.tag(box, label(n), color_of(n))


def draw_view(
    sheet: Sheet, sample: ImageViews, n: int, left: int, top: int, side: int
) -> None:
    """Draw a view, and below it what was done to it."""
    view = sample.views[n]
    x, y, factor = sheet.image(view.image, left, top, side, side)
    bottom = y + factor * view.image.shape[0]
    right = x + factor * view.image.shape[1]
    sheet.frame((x + 1, y + 1, right - 1, bottom - 1), color_of(n), halo=False)
    if n < NUM_GLOBAL:
        text = f'global {n + 1}'
    else:
        text = f'local {n + 1 - NUM_GLOBAL}'
    if view.box is not None and sample.source is not None:
        x1, y1, x2, y2 = view.box
        height, width = sample.source.shape[:2]
        share = (x2 - x1) * (y2 - y1) / (height * width)
        text += f' · {100 * share:.0f} %'
    sheet.text(left, bottom + 2, text, SMALL, color='black')
    changes = shorten(', '.join(view.changes), side + GAP - 4, SMALL)
    sheet.text(left, bottom + 15, changes, SMALL, color=GREY)
