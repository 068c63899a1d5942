# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Take pictures of a run into the page, small enough to send around."""

import base64
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmscfs.results import RunLog

WIDTH = 1120  # pixels
QUALITY = 78  # of jpeg
SHOWN = 16  # pictures in a page, which then has a few MB
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
        'bright is alike. Healthy: blurred at first, later on the object '
        'that the local view is of.',
    ),
    'embedding': (
        'Embedding',
        'Validation images as points, near where their features are alike; '
        'a colour a class. Healthy: colours part as the training goes on.',
    ),
    'detections': (
        'Detections',
        'What the detectors find in the same images.',
    ),
    'knn_layers': (
        'k-NN accuracy by layer',
        'Drawn by the test of several layers.',
    ),
}


class Picture(NamedTuple):
    """A picture, after how many iterations; None if its name has none."""

    path: Path
    step: int | None


class Shown(NamedTuple):
    """A picture as it stands in the page; without data it is unreadable."""

    when: str
    data: str
    width: int
    height: int


def find_pictures(run: RunLog) -> dict[str, list[Picture]]:
    """Return a run's pictures by series, in the order of their steps.

    Those of a later start replace those of an earlier one from its first
    step on, as its lines do.
    """
    found: dict[str, dict[int | None, Path]] = {}
    for start in run.starts:
        steps: dict[str, dict[int, Path]] = {}
        for path in sorted(start.folder.glob('vis_data/vis_image/*.png')):
            if match := re.fullmatch(r'(.+)_(\d{1,12})', path.stem):
                steps.setdefault(match[1], {})[int(match[2])] = path
        for name, paths in steps.items():
            old = found.get(name, {})
            kept: dict[int | None, Path] = {
                s: p
                for s, p in old.items()
                if s is not None and s < min(paths)
            }
            kept.update(paths.items())
            found[name] = kept
    for path in sorted(run.folder.glob('*.png')):
        if path.stem == 'knn':  # the report has a chart of the same
            continue
        found.setdefault(path.stem, {}).setdefault(None, path)
    return {
        name: [Picture(paths[s], s) for s in sorted(paths, key=_order)]
        for name, paths in found.items()
    }


def _order(step: int | None) -> float:
    return float('inf') if step is None else step


def choose(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """Choose the first, the last, and some evenly in between."""
    if len(pictures) <= most:
        return list(pictures)
    last = len(pictures) - 1
    return [pictures[round(i * last / (most - 1))] for i in range(most)]


def show(picture: Picture, run: RunLog) -> Shown:
    """Read a picture of a run and make it small."""
    when = '' if picture.step is None else f'iteration {picture.step}'
    if picture.step is not None and run.epoch_length:
        when += f', epoch {picture.step / run.epoch_length:.3g}'
    status = picture.path.stat()
    data, width, height = _encode(
        picture.path, status.st_mtime_ns, status.st_size
    )
    return Shown(when, data, width, height)


@lru_cache(maxsize=4 * SHOWN)  # a report that is watched asks again
def _encode(path: Path, *_: int) -> tuple[str, int, int]:
    try:
        with Image.open(path, formats=['PNG', 'JPEG']) as source:
            image = source.convert('RGBA')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # Being written, damaged, or larger than any picture of ours.
        return '', 0, 0
    ground = Image.new('RGB', image.size, 'white')
    ground.paste(image, mask=image.getchannel('A'))
    ground.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    ground.save(buffer, 'JPEG', quality=QUALITY, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/jpeg;base64,{text}', *ground.size
