# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Lay out pictures as rows of cells, with one typography and one palette."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from mmscfs.checkpoint import write_atomically

DPI = 128  # a power of two: pixels become inches and back without rounding
MARGIN, GAP = 16, 12  # px, around the sheet and between cells
# Okabe and Ito's colors and more of their kind: told apart by people with
# any color vision, and by the labels beside them.
PALETTE = (
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#E69F00',
    '#CC79A7',
    '#56B4E9',
    '#882255',
    '#999933',
    '#332288',
    '#117733',
)
GRAY = '#595959'
TITLE, BODY, SMALL = 18, 12, 11  # px, heights of text
LETTER, BOLD = 0.6, 0.72  # widths of letters, as shares of their height
# Control characters, and halves of pairs: bytes that are not text.
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')
HEAD = 68  # px, the height of the title and what is below it
ABOVE, LINE = 22, 14  # px, heights of the text above a cell and of one below


class Mark(NamedTuple):
    """A frame in an image, and its label."""

    #: Left, top, right and bottom, as shares of the image's sides.
    shares: Sequence[float] | np.ndarray
    color: str  #: Of the frame and the label's ground.
    label: str = ''


class Cell(NamedTuple):
    """An image with what is written around it, or a text beside images."""

    size: tuple[int, int]  #: Width and height that it may take, px.
    image: np.ndarray | None = None  #: RGB uint8 (H, W, 3).
    text: str = ''  #: In place of an image.
    above: str = ''
    below: Sequence[str] = ()  #: Lines.
    frame: str | None = None  #: Color of a frame around the image.
    marks: Sequence[Mark] = ()


def color_of(index: int) -> str:
    """Return the palette's color of a class or view, in turn."""
    return PALETTE[index % len(PALETTE)]


def points_of(size: float) -> float:
    """Return a length of ``size`` px in points."""
    return 72 * size / DPI


def shorten(
    text: str, width: float, size: int = BODY, letter: float = LETTER
) -> str:
    """Return a text of about ``width`` px at most, its middle left out.

    A mark stands for what has no glyph: names of files may have control
    characters, and bytes that are not text.
    """
    text = UNPRINTABLE.sub('\ufffd', text)
    length = max(1, int(width / (letter * size)))
    if len(text) <= length:
        return text
    head = length // 2
    return f'{text[:head]}…{text[len(text) - length + head + 1 :]}'


def write_png(image: np.ndarray, path: str | Path) -> None:
    """Write an RGB uint8 image (H, W, 3).

    Raises:
        OSError: It cannot be written; a file that was there stays.
    """
    _, content = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomically(path, content.tobytes())


def render(figure: Figure) -> np.ndarray:
    """Return a figure as RGB uint8 image (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return an image as large as a cell allows.

    Whole multiples keep their pixels.
    """
    rows, columns = image.shape[:2]
    scale = min(width / columns, height / rows)
    width, height = max(1, round(scale * columns)), max(1, round(scale * rows))
    if width < columns:
        how = cv2.INTER_AREA
    elif width % columns or height % rows:
        how = cv2.INTER_CUBIC
    else:
        how = cv2.INTER_NEAREST
    return cv2.resize(image, (width, height), interpolation=how)


def draw_sheet(
    rows: Sequence[Sequence[Cell]], title: str = '', subtitle: str = ''
) -> np.ndarray:
    """Draw rows of cells below a title; images lie in the middle of theirs.

    Args:
        rows (Sequence[Sequence[Cell]]): At least one.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    placed: list[tuple[Cell, np.ndarray | None, int, int, int]] = []
    top = HEAD
    width = max(BOLD * TITLE * len(title), LETTER * BODY * len(subtitle))
    for row in rows:
        images = [
            c.image if c.image is None else fit(c.image, *c.size) for c in row
        ]
        height = max(len(image) for image in images if image is not None)
        left, top = MARGIN, top + ABOVE * any(cell.above for cell in row)
        for cell, image in zip(row, images, strict=True):
            placed.append((cell, image, left, top, height))
            words = LETTER * BODY * len(cell.text)
            left += GAP + max(cell.size[0], int(words))
        width = max(width, left - GAP - MARGIN)
        top += height + LINE * max(len(cell.below) for cell in row) + GAP
    shape = top - GAP + MARGIN, 2 * MARGIN + int(width), 3
    ground = np.full(shape, 255, np.uint8)
    figure = Figure((shape[1] / DPI, shape[0] / DPI), DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
    axes.axis('off')
    write(axes, MARGIN, 14, title, TITLE, weight='bold')
    write(axes, MARGIN, 41, subtitle, color=GRAY)
    names = max(sum(bool(cell.above) for cell in row) for row in rows)
    for cell, image, left, top, height in placed:
        room = width / max(names, 1) - GAP
        name = shorten(cell.above, room, letter=BOLD)
        write(axes, left, top - ABOVE, name, weight='bold')
        write(axes, left, top + height / 2, cell.text, va='center')
        if image is None:
            continue
        left += (cell.size[0] - image.shape[1]) // 2
        top += (height - len(image)) // 2
        right, bottom = left + image.shape[1], top + len(image)
        ground[top:bottom, left:right] = image
        for n, text in enumerate(cell.below):
            text = shorten(text, cell.size[0] + GAP, SMALL)
            write(axes, left, bottom + 2 + n * LINE, text, SMALL, color=GRAY)
        frame = [Mark((0, 0, 1, 1), cell.frame)] if cell.frame else []
        for n, mark in enumerate([*frame, *cell.marks]):
            outline(axes, (left, top, right, bottom), mark, n)
    figure.figimage(ground, zorder=-1)
    return render(figure)


def write(
    axes: Axes, x: float, y: float, text: str, size: int = BODY, **style: Any
) -> None:
    """Write a text whose upper left corner is (x, y), px."""
    style = dict(va='top', parse_math=False) | style
    text = UNPRINTABLE.sub('\ufffd', text)
    axes.text(x, y, text, fontsize=points_of(size), **style)


def outline(
    axes: Axes, box: tuple[int, int, int, int], mark: Mark, number: int
) -> None:
    """Draw a mark in an image whose edges are ``box``, px.

    Inside of its edges, so that neighbors both show. A dark line around it
    shows it on any ground. The labels lie within the image, every other one
    below, so that those of boxes with a common corner both show.
    """
    left, top, right, bottom = box
    x1, y1, x2, y2 = np.clip(
        np.array(mark.shares) * ([right - left, bottom - top] * 2)
        + [left + 1, top + 1, left - 1, top - 1],
        [left + 1, top + 1] * 2,
        [right - 1, bottom - 1] * 2,
    )
    shade = withStroke(linewidth=points_of(4), foreground='#00000090')
    axes.add_patch(
        Rectangle(
            (x1, y1),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=mark.color,
            linewidth=points_of(2),
            joinstyle='miter',
            path_effects=[shade],
        )
    )
    if mark.label:
        is_right, is_low = x1 + x2 > left + right, number % 2 == 1
        write(
            axes,
            x2 - 2 if is_right else x1 + 2,
            y2 - 2 if is_low else y1 + 2,
            mark.label,
            SMALL,
            ha='right' if is_right else 'left',
            va='bottom' if is_low else 'top',
            color='white',
            weight='bold',
            bbox=dict(
                facecolor=mark.color, edgecolor='none', pad=points_of(1.7)
            ),
        )
