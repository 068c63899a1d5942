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
    """The pictures of one name and run, the newest first."""

    run: int  #: Number of the run.
    title: str  #: Heading.
    caption: str  #: How they are read, or "".
    #: When each was drawn, and its data; "" if it cannot be read.
    pictures: list[tuple[str, str]]


def make_pictures(logs: Sequence[RunLog]) -> list[Series]:
    """Choose pictures that fit the page, those of known series first."""
    found = [find_pictures(log) for log in logs]
    most = min(max(SHOWN // max(sum(map(len, found)), 1), 2), 8)
    names = [*SERIES, *sorted({name for series in found for name in series})]
    return [
        Series(
            number,
            *SERIES.get(name, (name.replace('_', ' ').capitalize(), '')),
            [
                (when(step, logs[number].epoch_length), encode(path))
                for step, path in reversed(choose(series[name], most))
            ],
        )
        for name in dict.fromkeys(names)
        for number, series in enumerate(found)
        if name in series
    ]


def when(step: int | None, length: int | None) -> str:
    """Say when a picture was drawn, "" if that is unknown."""
    if step is None:
        return ''
    epoch = f', epoch {step / length:.3g}' if length else ''
    return f'Iteration {step}{epoch}'


def find_pictures(run: RunLog) -> dict[str, list[Picture]]:
    """Return a run's pictures by series, in the order of their steps.

    Of two of a step that of the later start counts.
    """
    drawn: dict[str, dict[int, Path]] = {}
    for start in run.starts:
        for path in sorted(start.folder.glob('vis_data/vis_image/*.png')):
            if match := re.fullmatch(r'(.+)_(\d{1,12})', path.stem):
                drawn.setdefault(match[1], {})[int(match[2])] = path
    found: dict[str, list[Picture]] = {
        name: [*sorted(pictures.items())] for name, pictures in drawn.items()
    }
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
