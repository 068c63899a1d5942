# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Lay out pictures in px, with one typography and one palette."""

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath

from mmscfs.checkpoint import write_atomically

Box = tuple[int, int, int, int]  # left, top, right, bottom, px

DPI = 128  # a power of two: pixels become inches and back without rounding
MARGIN = 16  # px
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
# Heights of text in px.
TITLE, HEADING, BODY, SMALL = 18, 14, 12, 11
# Control characters, and halves of pairs: bytes that are no text.
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')
LABEL = 16  # px, the height of a box's label
HEAD = 68  # px, the height of the title and what is below it


def color_of(index: int) -> str:
    """Return the palette's color of a class or view, in turn."""
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


def write_png(image: np.ndarray, path: str | Path) -> None:
    """Write an RGB uint8 image (H, W, 3).

    Raises:
        OSError: It cannot be written; a file that was there stays.
    """
    _, content = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomically(path, content.tobytes())


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


class Sheet:
    """A white picture whose unit is the px; (0, 0) is the upper left corner.

    The title, and below it in gray the subtitle, take the upper ``HEAD`` px.

    Args:
        width (int): In px, more if the title needs it.
        height (int): In px.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.
    """

    def __init__(
        self, width: int, height: int, title: str = '', subtitle: str = ''
    ) -> None:
        titles = text_width(title, TITLE, 'bold'), text_width(subtitle, BODY)
        self.width = max(width, math.ceil(2 * MARGIN + max(titles)))
        self.height = height
        self.figure = Figure(
            figsize=(self.width / DPI, height / DPI),
            dpi=DPI,
            facecolor='white',
        )
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        self.axes.axis('off')
        self.axes.autoscale(False)
        self.labels: list[tuple[float, float, float]] = []
        self.text(MARGIN, 14, title, TITLE, weight='bold')
        self.text(MARGIN, 41, subtitle, color=GRAY)

    def image(
        self,
        image: np.ndarray,
        left: int,
        top: int,
        width: int,
        height: int,
        frame: str | None = None,
    ) -> Box:
        """Put an RGB uint8 image (H, W, 3) in the middle of a cell.

        In px, with a frame of a color if one is named. Returns where the
        image lies in the sheet.
        """
        image = fit(image, width, height)
        rows, columns = image.shape[:2]
        left += (width - columns) // 2
        top += (height - rows) // 2
        bottom = self.height - top - rows  # matplotlib counts from below
        self.figure.figimage(image, left, bottom, zorder=-1)
        box = left, top, left + columns, top + rows
        if frame is not None:
            self.outline(box, (0, 0, 1, 1), frame, halo=False)
        return box

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = BODY,
        within: float | None = None,
        **style: Any,
    ) -> None:
        """Write a text whose upper left corner is (x, y).

        With ``within`` its middle is left out to make it that many px wide.
        """
        if within is not None:
            text = shorten(text, within, size, style.get('weight', 'normal'))
        style = dict(va='top', color='black', parse_math=False) | style
        self.axes.text(
            x, y, printable(text), fontsize=points_of(size), **style
        )

    def outline(
        self,
        image: Box,
        shares: Sequence[float] | np.ndarray,
        color: str,
        label: str = '',
        inset: float = 0,
        halo: bool = True,
        above: bool = False,
    ) -> None:
        """Draw the part of an image that lies in a box, and its label.

        Args:
            image (Box): Where the image lies in the sheet. Nothing is drawn
                outside it, but for a label above.
            shares (Sequence[float]): Left, top, right and bottom, as shares
                of the image's sides.
            color (str): Of the frame and the label's ground.
            label (str): Defaults to none.
            inset (float): By which the frame is smaller, px. Defaults to 0.
            halo (bool): Draw a dark line around the frame, which shows it on
                any ground. Defaults to True.
            above (bool): Prefer the place above the box for the label.
                Defaults to False.
        """
        left, top, right, bottom = image
        edge = 1 + halo
        x1, y1, x2, y2 = np.clip(
            np.array(shares) * ([right - left, bottom - top] * 2)
            + [left + inset, top + inset, left - inset, top - inset],
            [left + edge, top + edge] * 2,
            [right - edge, bottom - edge] * 2,
        )
        shade = withStroke(linewidth=points_of(4), foreground='#00000090')
        self.axes.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=color,
                linewidth=points_of(2),
                joinstyle='miter',
                path_effects=[shade] if halo else None,
            )
        )
        if not label:
            return
        # A corner of the box that has no other label.
        wide = text_width(label, SMALL, 'bold') + 6
        places = [(x, y) for y in (y1, y2 - LABEL) for x in (x1, x2 - wide)]
        if above and y1 - LABEL >= top:
            places.insert(0, (x1, y1 - LABEL))
        places = [(max(left, min(x, right - 1 - wide)), y) for x, y in places]
        free = [
            (x, y)
            for x, y in places
            if not any(
                x < a + size and a < x + wide and abs(y - b) < LABEL
                for a, b, size in self.labels
            )
        ]
        x, y = (free or places)[0]
        self.labels.append((x, y, wide))
        self.text(
            x + 2,
            y + 2,
            label,
            SMALL,
            color='white',
            weight='bold',
            bbox=dict(facecolor=color, edgecolor='none', pad=points_of(1.7)),
        )

    def render(self) -> np.ndarray:
        """Return the sheet as RGB uint8 image (H, W, 3)."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3].copy()
