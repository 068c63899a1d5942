# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Lay out pictures in px, with one typography and one palette."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath

from mmscfs.checkpoint import write_atomically

DPI = 128  # a power of two: pixels become inches and back without rounding
MARGIN = 16  # px
# Okabe and Ito's colours and more of their kind: told apart by people with
# any colour vision, and by the labels beside them.
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
GREY = '#595959'
# Heights of text in px.
TITLE, HEADING, BODY, SMALL = 18, 14, 12, 11
# Control characters, and halves of pairs: bytes that are no text.
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')
TAG = 16  # px, the height of a tag
HEAD = 68  # px, the height of the title and what is below it


def color_of(index: int) -> str:
    """Return the palette's colour of a class or view, in turn."""
    return PALETTE[index % len(PALETTE)]


def points_of(size: float) -> float:
    """Return a length of ``size`` px in points."""
    return 72 * size / DPI


def printable(text: str) -> str:
    """Return a text with a mark for what has no glyph.

    Names of files may have control characters, and bytes that are no text.
    """
    return UNPRINTABLE.sub('\ufffd', text)


@cache
def text_width(text: str, size: int, weight: str = 'normal') -> float:
    """Return how wide a text of ``size`` px is, in px."""
    text = printable(text)
    font = FontProperties(size=points_of(size), weight=weight)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, False)
    return width * DPI / 72


def shorten(text: str, width: float, size: int, weight: str = 'normal') -> str:
    """Return a text of at most ``width`` px, its middle left out."""
    text = printable(text)
    length, short = len(text), text
    while length > 1 and text_width(short, size, weight) > width:
        length -= 1
        head = length // 2
        short = f'{text[:head]}…{text[len(text) - length + head :]}'
    return short


def title_width(title: str, subtitle: str) -> int:
    """Return the width in px that a sheet needs for its title."""
    widths = text_width(title, TITLE, 'bold'), text_width(subtitle, BODY)
    return math.ceil(2 * MARGIN + max(widths))


def write_png(image: np.ndarray, path: str | Path) -> None:
    """Write an RGB uint8 image (H, W, 3).

    Raises:
        OSError: It cannot be written; a file that was there stays.
    """
    _, content = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomically(path, content.tobytes())


def fit(image: np.ndarray, width: int, height: int) -> tuple[int, int]:
    """Return the largest (width, height) for an image inside a cell."""
    scale = min(width / image.shape[1], height / image.shape[0])
    return (
        max(1, round(scale * image.shape[1])),
        max(1, round(scale * image.shape[0])),
    )


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image to show it: whole multiples keep their pixels."""
    if width < image.shape[1]:
        how = cv2.INTER_AREA
    elif width % image.shape[1] or height % image.shape[0]:
        how = cv2.INTER_CUBIC
    else:
        how = cv2.INTER_NEAREST
    return cv2.resize(image, (width, height), interpolation=how)


class Sheet:
    """A white picture whose unit is the px; (0, 0) is the upper left corner.

    Args:
        width (int): In px.
        height (int): In px.
    """

    def __init__(self, width: int, height: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self.figure = Figure(
            figsize=(width / DPI, height / DPI), dpi=DPI, facecolor='none'
        )
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis('off')
        self.axes.autoscale(False)
        self.tags: list[tuple[float, float, float]] = []

    def image(
        self, image: np.ndarray, left: int, top: int, width: int, height: int
    ) -> tuple[int, int, float]:
        """Put an RGB uint8 image in the middle of a cell.

        Returns:
            tuple[int, int, float]: Left and top of the image in the sheet,
            and px of the sheet for a px of the image.
        """
        inner_width, inner_height = fit(image, width, height)
        left += (width - inner_width) // 2
        top += (height - inner_height) // 2
        self.pixels[top : top + inner_height, left : left + inner_width] = (
            resize(image, inner_width, inner_height)
        )
        # By the longer side: the other may be about a px wide, rounded.
        longer = int(inner_width > inner_height)
        scale = (inner_height, inner_width)[longer] / image.shape[longer]
        return left, top, scale

    def text(
        self, x: float, y: float, text: str, size: int = BODY, **style: Any
    ) -> None:
        """Write a text whose upper left corner is (x, y)."""
        # A "$" is one, and begins no formula.
        text = printable(text).replace('$', r'\$')
        style = dict(va='top', color='black') | style
        self.axes.text(x, y, text, fontsize=points_of(size), **style)

    def frame(
        self,
        box: tuple[float, float, float, float],
        color: str,
        linewidth: float = 2,
        halo: bool = True,
    ) -> None:
        """Outline a box (left, top, right, bottom).

        With ``halo`` a dark line around it shows it on any ground.
        """
        left, top, right, bottom = box
        self.axes.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=color,
                linewidth=points_of(linewidth),
                joinstyle='miter',
                path_effects=[
                    withStroke(
                        linewidth=points_of(linewidth + 2),
                        foreground='#00000090',
                    )
                ]
                if halo
                else None,
            )
        )

    def tag(
        self,
        box: tuple[float, float, float, float],
        text: str,
        color: str,
        above: bool = False,
        right: float = float('inf'),
    ) -> None:
        """Write what a box is, in a corner of it that has no other tag.

        Args:
            box (tuple): Left, top, right, bottom.
            text (str): The text, which becomes white on a coloured ground.
            color (str): Of the ground.
            above (bool): Prefer the place above the box. Defaults to False.
            right (float): Where the tag must end. Defaults to anywhere.
        """
        wide = text_width(text, SMALL, 'bold') + 6
        places = [
            (x, y)
            for y in (box[1], box[3] - TAG)
            for x in (box[0], box[2] - wide)
        ]
        if above:
            places.insert(0, (box[0], box[1] - TAG))
        places = [(min(x, right - wide), y) for x, y in places]
        free = [
            (x, y)
            for x, y in places
            if not any(
                x < a + size and a < x + wide and abs(y - b) < TAG
                for a, b, size in self.tags
            )
        ]
        x, y = (free or places)[0]
        self.tags.append((x, y, wide))
        self.text(
            x + 2,
            y + 2,
            text,
            SMALL,
            color='white',
            weight='bold',
            bbox=dict(facecolor=color, edgecolor='none', pad=points_of(1.7)),
        )

    def add_axes(self, left: int, top: int, width: int, height: int) -> Axes:
        """Return axes for a plot in a part of the sheet."""
        sheet_height, sheet_width = self.pixels.shape[:2]
        return self.figure.add_axes(
            (
                left / sheet_width,
                1 - (top + height) / sheet_height,
                width / sheet_width,
                height / sheet_height,
            )
        )

    def title(self, title: str, subtitle: str = '') -> None:
        """Write the title, and below it in grey what the picture shows."""
        self.text(MARGIN, 14, title, TITLE, weight='bold')
        self.text(MARGIN, 41, subtitle, BODY, color=GREY)

    def render(self) -> np.ndarray:
        """Return the sheet as RGB uint8 image (H, W, 3)."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        # The images need no drawing: they are laid under what was drawn.
        drawn = np.asarray(canvas.buffer_rgba())
        inked = drawn[..., 3] > 0
        share = drawn[inked, 3:] / 255
        picture = self.pixels.copy()
        picture[inked] = np.rint(
            share * drawn[inked, :3] + (1 - share) * picture[inked]
        )
        return picture
