# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Make curves of what runs logged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

POINTS = 240  # of a curve: more cannot be told apart on a screen


class Curve(NamedTuple):
    """A curve of at most ``POINTS`` points.

    Attributes:
        x (np.ndarray): Positions, rising.
        y (np.ndarray): Values; of several in one point their mean.
        low (np.ndarray): The least of them.
        high (np.ndarray): The largest of them.
        per_point (int): How many logged values a point stands for.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_point: int = 1


def make_curve(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Make a curve, whose neighbouring values share a point if too many.

    Values that are not finite are gaps.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    ys = np.where(np.isfinite(ys), ys, np.nan)
    if len(xs) <= POINTS:
        return Curve(xs, ys, ys, ys)
    size = -(-len(xs) // POINTS)
    short = -len(xs) % size
    xs = np.pad(xs, (0, short), constant_values=np.nan).reshape(-1, size)
    ys = np.pad(ys, (0, short), constant_values=np.nan).reshape(-1, size)
    empty = np.isnan(ys).all(1)
    filled = np.where(empty[:, None], 0, ys)
    mean, low, high = (
        np.where(empty, np.nan, reduce(filled, axis=1))
        for reduce in (np.nanmean, np.nanmin, np.nanmax)
    )
    return Curve(np.nanmean(xs, 1), mean, low, high, size)
