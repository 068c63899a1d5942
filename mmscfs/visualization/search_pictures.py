# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw search maps over their images."""

import math
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np

from .search_maps import SearchMaps, SearchSample
from .sheet import (
    BODY,
    GREY,
    HEAD,
    HEADING,
    MARGIN,
    SMALL,
    Sheet,
    color_of,
    fit,
    resize,
    shorten,
    text_width,
    title_width,
)

# Up to a full yellow: over an image, the paler ones would look like dirt.
COLORS = matplotlib.colormaps['inferno']
BRIGHTEST = 0.92
PANEL, GAP = 112, 8  # px
CAPTION = 18  # px, below a panel
LABEL = 58  # px, left of the panels
NAME = 26  # px, above the panels of a network and an image
SPACE = 12  # px, between images
FOOT = 42  # px
WIDEST = 1500  # px, of images side by side
RAMP = 120  # px, of the key's colours
KEY = (
    'cosine similarity, from lowest to highest in each map (the numbers '
    'below it)'
)
# An image, a network's name, and what this finds by name of layer.
Cell = tuple[SearchSample, str, Mapping[str, SearchMaps]]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map (h, w), min to max, over an RGB uint8 image (H, W, 3).

    The image goes grey, so that all colour is the map's.
    """
    span = heat.max() - heat.min()
    heat = (heat - heat.min()) / (span if span > 0 else 1)
    heat = cv2.resize(
        heat.astype(np.float32),
        image.shape[1::-1],
        interpolation=cv2.INTER_CUBIC,
    )
    colors = COLORS(BRIGHTEST * heat.clip(0, 1))[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # A dark image keeps its edges, and does not darken the map.
    grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)[..., None]
    return (0.25 * grey + 0.75 * 255 * colors).astype(np.uint8)


def draw_search_maps(
    samples: Sequence[SearchSample], title: str = '', subtitle: str = ''
) -> np.ndarray:
    """Draw images with their local views and search maps.

    For each sample one row of local views, the image at their left, and one
    row of maps a search layer, that of the mean query at their left. Networks
    stand side by side; of one network, two samples.

    Args:
        samples (Sequence[SearchSample]): All with the same number of local
            views and the same networks.
        title (str): Defaults to none.
        subtitle (str): What the samples have in common. Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    networks = list(samples[0].found)
    columns = 1 + len(samples[0].local_views)
    block = LABEL + columns * (PANEL + GAP)
    side_by_side = len(networks)
    if len(networks) == 1 and len(samples) > 1 and 2 * block < WIDEST:
        side_by_side = 2
    cells = [
        (sample, name, maps)
        for sample in samples
        for name, maps in sample.found.items()
    ]
    rows = [
        cells[i : i + side_by_side] for i in range(0, len(cells), side_by_side)
    ]
    heights = [row_heights(row) for row in rows]
    # Drawn on whole pixels, small letters are a little wider.
    key = RAMP + 10 + math.ceil(1.05 * text_width(KEY, SMALL))
    width = 2 * MARGIN + max(side_by_side * (block + GAP), key)
    steps = [NAME + sum(row) + SPACE for row in heights]
    height = HEAD + sum(steps) - SPACE + FOOT
    sheet = Sheet(max(width, title_width(title, subtitle)), height)
    sheet.title(title, subtitle)
    top = HEAD
    for row, parts, step in zip(rows, heights, steps, strict=True):
        for i, cell in enumerate(row):
            draw_cell(sheet, cell, MARGIN + i * (block + GAP), top, parts)
        top += step
    draw_key(sheet, MARGIN, height - FOOT + 12)
    return sheet.render()


def row_heights(row: Sequence[Cell]) -> list[int]:
    """Return the height of the local views, and of each layer's maps."""
    images = [sample.image for sample, _, _ in row]
    tiles = [tile for sample, _, _ in row for tile in sample.local_views]
    layers = max(len(maps) for _, _, maps in row)
    image = max(fit(image, PANEL, PANEL)[1] for image in images)
    tile = max(fit(tile, PANEL, PANEL)[1] for tile in tiles)
    return [max(image, tile) + CAPTION] + layers * [image + CAPTION]


def draw_cell(
    sheet: Sheet, cell: Cell, left: int, top: int, heights: Sequence[int]
) -> None:
    """Draw what one network finds in one image."""
    sample, network, found = cell
    x = left + LABEL
    space = (len(sample.local_views) + 1) * (PANEL + GAP)
    name = ' · '.join(filter(None, (network, sample.name)))
    name = shorten(name, space, HEADING, 'bold')
    sheet.text(x, top, name, HEADING, weight='bold')
    top += NAME
    draw_local_views(sheet, sample, x, top, heights[0] - CAPTION)
    top += heights[0]
    image = resize(sample.image, *fit(sample.image, PANEL, PANEL))
    for (layer, maps), step in zip(found.items(), heights[1:], strict=False):
        height = step - CAPTION
        sheet.text(left, top + height / 2, layer, BODY, va='center')
        for n, heat in enumerate([maps.mean, *maps.views]):
            x = left + LABEL + n * (PANEL + GAP)
            panel = overlay(image, heat.numpy())
            sheet.image(panel, x, top, PANEL, height)
            extent = f'{heat.min():.2f} to {heat.max():.2f}'
            text = extent if n else f'mean {extent}'
            caption(sheet, x, top + height, text)
        top += step


def draw_local_views(
    sheet: Sheet, sample: SearchSample, left: int, top: int, height: int
) -> None:
    """Draw the image and its local views beside it."""
    name = 'global view' if sample.boxes is None else 'image'
    at = sheet.image(sample.image, left, top, PANEL, height)
    caption(sheet, left, top + height, name)
    if sample.boxes is not None:
        outline(sheet, sample, *at)
    for n, view in enumerate(sample.local_views):
        left += PANEL + GAP
        x, y, factor = sheet.image(view, left, top, PANEL, height)
        caption(sheet, left, top + height, f'local view {n + 1}')
        if sample.boxes is not None:
            right = x + factor * view.shape[1]
            bottom = y + factor * view.shape[0]
            frame = (x + 1, y + 1, right - 1, bottom - 1)
            sheet.frame(frame, color_of(n), halo=False)


def outline(
    sheet: Sheet, sample: SearchSample, left: int, top: int, factor: float
) -> None:
    """Draw where the local views lie in the image."""
    assert sample.boxes is not None
    height, width = (factor * side for side in sample.image.shape[:2])
    for n, box in enumerate(sample.boxes):
        x1, y1, x2, y2 = box * [width, height, width, height]
        # Inside, so that neighbours of a jigsaw both show.
        frame = (left + x1 + 1, top + y1 + 1, left + x2 - 1, top + y2 - 1)
        sheet.frame(frame, color_of(n), halo=False)
        sheet.tag(frame, str(n + 1), color_of(n))


def caption(sheet: Sheet, left: int, top: int, text: str) -> None:
    """Write below a panel."""
    sheet.text(left + PANEL / 2, top + 2, text, SMALL, color=GREY, ha='center')


def draw_key(sheet: Sheet, left: int, top: int) -> None:
    """Draw what the colours mean."""
    ramp = COLORS(np.linspace(0, BRIGHTEST, RAMP))[None, :, :3]
    ramp = np.repeat((255 * ramp).astype(np.uint8), 12, axis=0)
    sheet.image(ramp, left, top, RAMP, 12)
    sheet.text(left + RAMP + 10, top - 1, KEY, SMALL, color=GREY)
