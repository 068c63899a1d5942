# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a start is worth, by the number of annotated images.

A curve is AP in percent by number of images and seed. Intervals are those of
Student's t over the seeds. A seed has drawn the same images for all starts, so
two of these are compared by the differences of equal seeds.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import t

from .tables import Row, Table

LEVEL = 0.95
Curve = Mapping[int, Mapping[int, float]]  # number of images -> seed -> AP


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float  #: Of the values.
    #: Half the width of the interval, None of a single value, which has no
    #: interval.
    half: float | None
    seeds: int  #: Number of values.

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and its confidence interval of 95 %.

    Raises:
        ValueError: ``values`` is empty.

    Example:
        >>> interval([10.0, 12.0, 14.0]).half  # 4.3027 * 2 / sqrt(3)
        4.968...
    """
    count, half = len(values), None
    if count > 1:
        quantile = float(t.ppf((1 + LEVEL) / 2, count - 1))
        half = quantile * stdev(values) / math.sqrt(count)
    return Interval(mean(values), half, count)


def intervals(curve: Curve) -> dict[int, Interval]:
    """Return the interval at each number of images, ascending."""
    return {n: interval([*curve[n].values()]) for n in sorted(curve)}


def paired(curve: Curve, base: Curve) -> tuple[Curve, Curve]:
    """Return what both curves have: the same numbers and seeds."""
    common = {
        n: seeds
        for n in sorted(curve.keys() & base.keys())
        if (seeds := sorted(curve[n].keys() & base[n].keys()))
    }
    first, second = (
        {n: {s: c[n][s] for s in seeds} for n, seeds in common.items()}
        for c in (curve, base)
    )
    return first, second


def differences(curve: Curve, base: Curve) -> dict[int, Interval]:
    """Return how much higher a curve is than another, by number of images."""
    curve, base = paired(curve, base)
    return intervals(
        {n: {s: ap - base[n][s] for s, ap in curve[n].items()} for n in curve}
    )


def images_needed(means: Mapping[int, float], score: float) -> float:
    """Return how many images a curve needs to reach a score.

    Between two numbers of images, the mean is taken to grow with the
    logarithm of the number. Where the curve reaches the score several times,
    the first counts.

    Args:
        means (Mapping[int, float]): AP by number of images.
        score (float): AP.

    Returns:
        float: The number: at least the curve's smallest one, and infinity if
        it does not reach the score.

    Example:
        >>> images_needed({100: 10.0, 400: 14.0}, 12.0)
        200.0
    """
    points = sorted(means.items())
    if points[0][1] >= score:
        return points[0][0]
    for (few, low), (many, high) in pairwise(points):
        if high >= score:
            return few * (many / few) ** ((score - low) / (high - low))
    return math.inf


def describe(name: str, curve: Curve, base_name: str, base: Curve) -> str:
    """Say what a start is worth, beside another.

    In AP at each number of images, and in annotated images that it saves:
    those that the other start needs more to be as good as this one with the
    fewest. What the seeds cannot tell is said in words.
    """
    found = differences(curve, base)
    if not found:
        return f'{name} and {base_name} have no finished run in common.'
    gains: list[str] = []
    for count, gain in found.items():
        half = '' if gain.half is None else f' ± {gain.half:.1f}'
        unit, noun = ('', '') if gains else (' AP', ' annotated images')
        text = f'{gain.mean:+.1f}{half}{unit} with {count:,}{noun}'
        if half and not gain.is_clear:
            text += ' (not told from 0)'
        gains.append(text)
    text = f'{name} against {base_name}: {"; ".join(gains)}. '
    return text + describe_saving(name, curve, base_name, base)


def describe_saving(
    name: str, curve: Curve, base_name: str, base: Curve
) -> str:
    """Say how many annotated images a start saves."""
    few, gain = next(iter(differences(curve, base).items()))
    if gain.half is None:
        return (
            'A single seed has no interval: it cannot tell these differences '
            'from chance.'
        )
    if not gain.is_clear:
        return (
            f'Whether it saves annotated images, {gain.seeds} seeds cannot '
            'tell.'
        )
    if gain.mean < 0:
        return 'It saves no annotated images.'
    means, others = (
        {n: part.mean for n, part in intervals(c).items()}
        for c in paired(curve, base)
    )
    needed = images_needed(others, means[few])
    about = f'about {needed:,.0f}: it saves {needed - few:,.0f}'
    if math.isinf(needed):
        most = max(others)
        about = f'more than {most:,}: it saves more than {most - few:,}'
    return (
        f'For the {means[few]:.1f} AP that {name} reaches with {few:,} '
        f'annotated images, {base_name} needs {about}.'
    )


def make_tables(curves: Mapping[str, Curve], title: str) -> list[Table]:
    """Return a table of the curves, and one of what they gain on the first."""
    base_name, *others = curves
    gains = {
        name: differences(curves[name], curves[base_name]) for name in others
    }
    parts = [
        (title, {name: intervals(curve) for name, curve in curves.items()}),
        (f'{title}, less that of {base_name} at the same seed', gains),
    ]
    counts = sorted({n for curve in curves.values() for n in curve})
    return [
        Table(
            heading,
            '±: half of the 95 % confidence interval over the seeds',
            ('start', 'seeds'),
            tuple(f'{n} images' for n in counts),
            [make_row(name, found) for name, found in part.items() if found],
        )
        for heading, part in parts
        if any(part.values())
    ]


def make_row(name: str, found: Mapping[int, Interval]) -> Row:
    """Return a start's line of a table."""
    seeds = {part.seeds for part in found.values()}
    return Row(
        (name, '-'.join(map(str, sorted({min(seeds), max(seeds)})))),
        {f'{n} images': part.mean for n, part in found.items()},
        f'{name}/*',
        True,
        {
            f'{n} images': part.half
            for n, part in found.items()
            if part.half is not None
        },
    )
