# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Take pictures of a run into the page, small enough to send around."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmscfs.results import RunLog

WIDTH = 1120  # pixels
QUALITY = 78  # of JPEG
SHOWN = 16  # pictures on a page, which then has a few MB of them
# Name of a series -> its heading, and how it is read.
SERIES = {
    'views': (
        'Crops',
        'What the network is given of the same images. The crops should '
        'still show what the image is of, the small ones a part of it.',
    ),
    'search_maps': (
        'Search maps',
        'Where in the global view the search finds what a local view shows: '
        'bright means alike. Healthy: blurred at first, later on the object '
        'that the local view shows.',
    ),
    'embedding': (
        'Embedding',
        'Validation images as points, near where their features are alike; '
        'one color per class. Healthy: colors part during the training.',
    ),
}


# A picture, after how many iterations it was drawn: None if its name lacks it.
Picture = tuple[int | None, Path]


class Series(NamedTuple):
    """The pictures of one name, the newest first.

    Attributes:
        title (str): Heading.
        caption (str): How they are read, or "".
        runs (dict[int, list[tuple[str, str]]]): For the number of each run
            its pictures: when each was drawn, and its data; "" if it cannot
            be read.
    """

    title: str
    caption: str
    runs: dict[int, list[tuple[str, str]]]


def make_pictures(logs: Sequence[RunLog]) -> list[Series]:
    """Choose pictures that fit the page, those of known series first."""
    found = [find_pictures(log) for log in logs]
    count = sum(map(len, found))
    most = min(max(SHOWN // max(count, 1), 2), 8)
    others = sorted({name for pictures in found for name in pictures})
    chosen = []
    for name in dict.fromkeys([*SERIES, *others]):
        title, caption = SERIES.get(name, (name.replace('_', ' '), ''))
        series = Series(title.capitalize(), caption, {})
        for number, pictures in enumerate(found):
            for step, path in reversed(choose(pictures.get(name, []), most)):
                when, length = '', logs[number].epoch_length
                if step is not None:
                    when = f'Iteration {step}'
                    when += f', epoch {step / length:.3g}' if length else ''
                shown = series.runs.setdefault(number, [])
                shown.append((when, encode(path)))
        if series.runs:
            chosen.append(series)
    return chosen


def find_pictures(run: RunLog) -> dict[str, list[Picture]]:
    """Return a run's pictures by series, in the order of their steps.

    Those of a later start replace those of an earlier one from its first
    step on, as its lines do.
    """
    found: dict[str, list[Picture]] = {}
    for start in run.starts:
        drawn: dict[str, list[tuple[int, Path]]] = {}
        for path in start.folder.glob('vis_data/vis_image/*.png'):
            if match := re.fullmatch(r'(.+)_(\d{1,12})', path.stem):
                drawn.setdefault(match[1], []).append((int(match[2]), path))
        for name, pictures in drawn.items():
            first, _ = min(pictures)
            kept = [p for p in found.get(name, []) if (p[0] or 0) < first]
            found[name] = [*kept, *sorted(pictures)]
    for path in sorted(run.folder.glob('*.png')):
        if path.stem != 'knn':  # the report has a chart of the same
            found.setdefault(path.stem, []).append((None, path))
    return found


def choose(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """Choose the first, the last, and some evenly in between."""
    if len(pictures) <= most:
        return list(pictures)
    last = len(pictures) - 1
    return [pictures[round(i * last / (most - 1))] for i in range(most)]


def encode(path: Path) -> str:
    """Return a picture as a small JPEG in a data address, "" if unreadable."""
    try:
        with Image.open(path, formats=['PNG', 'JPEG']) as source:
            image = source.convert('RGBA')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # Being written, damaged, or larger than any picture of ours.
        return ''
    ground = Image.new('RGB', image.size, 'white')
    ground.paste(image, mask=image.getchannel('A'))
    ground.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    ground.save(buffer, 'JPEG', quality=QUALITY, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/jpeg;base64,{text}'
