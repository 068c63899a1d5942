# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell which masks of COCO's format pycocotools can take.

It counts in 32 bits and believes what it is given. Of others it runs out of
memory, loops for ever, or returns memory that was never set.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from .common import cut

REACH = 10  # sides of an image that a polygon may lie outside of it
RUN = r'[P-o]{0,5}[0-O]'  # a packed run length: five bits a character


def mask_problem(mask: Any, image: Sequence[float]) -> str | None:
    """Say what is wrong with a mask: polygons, or runs of pixels.

    ``image`` is the image's width and height, px.
    """
    if isinstance(mask, list):
        return polygons_problem(mask, image)
    if not isinstance(mask, dict):
        return 'is neither polygons nor run lengths'
    size, counts = mask.get('size'), mask.get('counts')
    expected = [*image][::-1]
    if size != expected:
        return (
            f'has size={cut(size)} instead of [height, width] of the image, '
            f'{expected}'
        )
    if isinstance(counts, str) and re.fullmatch(f'({RUN})+', counts):
        total = packed_total(counts)
    elif isinstance(counts, list) and all(
        type(run) is int and run >= 0 for run in counts
    ):
        total = sum(counts)
    else:
        return 'has counts that are not run lengths'
    if total != size[0] * size[1]:
        return (
            f'has run lengths of {total:.0f} pixels in all instead of '
            f'{size[0] * size[1]}'
        )
    return None


def packed_total(counts: str) -> float:
    """Return the pixels in COCO's packed run lengths, as pycocotools counts.

    It has no sum of them. But in an image of one row a box ends where the
    last run of foreground does: one that is added to the background's last.
    """
    from pycocotools import mask  # mmdet's, which pre-training does without

    runs = re.findall(RUN, counts)  # background, foreground, background ...
    up_to_background = ''.join(runs[: len(runs) - 1 | 1])
    added = dict(size=[1, 2**29], counts=f'{up_to_background}1')
    left, _, width, _ = mask.toBbox(added)
    foreground = int(mask.area(dict(added, counts=counts)))
    return float(left + width) - int(mask.area(added)) + foreground


def polygons_problem(polygons: list, image: Sequence[float]) -> str | None:
    """Say what is wrong with polygons [x, y, x, y, ...]."""
    reach = REACH * max(image)
    for polygon in polygons:
        if not isinstance(polygon, list):
            return 'is not a list of polygons [[x, y, x, y, ...], ...]'
        if len(polygon) % 2:
            return (
                f'has a polygon of {len(polygon)} coordinates, an odd number'
            )
        try:
            is_finite = math.isfinite(sum(polygon))  # much faster than each
        except (TypeError, OverflowError):
            is_finite = False
        if not is_finite:
            return 'has a polygon whose coordinates are not finite numbers'
        low, high = min(polygon, default=0), max(polygon, default=0)
        if low < -reach or high > reach:
            return (
                f'has a polygon with the coordinate '
                f'{high if high > reach else low}, far outside of the image '
                f'({image[0]}x{image[1]})'
            )
    return None
