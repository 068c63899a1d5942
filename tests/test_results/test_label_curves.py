# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Intervals, images saved, and what is said of both."""

import math

import pytest

from mmscfs.results.label_curves import (
    describe,
    differences,
    images_needed,
    interval,
    make_tables,
)


def test_interval_by_hand():
    """The quantile of two degrees of freedom is 4.3027 in any table."""
    found = interval([10.0, 12.0, 14.0])
    assert found.mean == 12
    assert found.half == pytest.approx(4.3027 * 2 / math.sqrt(3), abs=1e-4)
    assert found.seeds == 3
    assert interval([7.0]) == (7, None, 1)


def test_differences_are_of_equal_seeds():
    """Those of a seed that one curve lacks are left out."""
    base = {48: {0: 10, 1: 20, 2: 99}, 96: {0: 30}, 200: {1: 5}}
    curve = {48: {1: 23, 0: 12}, 96: {0: 29}, 500: {0: 1}, 200: {0: 5}}
    found = differences(curve, base)
    assert [*found] == [48, 96]
    # 2 and 3: deviation sqrt(0.5), over sqrt(2), times 12.7062.
    assert found[48] == pytest.approx((2.5, 12.7062 / 2, 2), abs=1e-4)
    assert found[96] == (-1, None, 1)


@pytest.mark.parametrize(
    ('score', 'images'),
    [
        (9, 50),  # as good with the fewest
        (11, 50 * math.sqrt(2)),  # halfway to 100, in the logarithm
        (13, 100 * 4**0.25),
        (16.1, math.inf),
    ],
)
def test_images_needed(score, images):
    """For the first time: the curve falls once."""
    means = {400: 16, 50: 10, 100: 12, 1000: 11}
    assert images_needed(means, score) == pytest.approx(images)


def curve(*rows):
    """A curve of 50, 100, 400 images; each row has AP of seeds 0, 1, 2."""
    return {
        n: dict(enumerate(row))
        for n, row in zip((50, 100, 400), rows, strict=True)
    }


BASE = curve((10, 10, 10), (12, 12, 12), (16, 16, 16))


@pytest.mark.parametrize(
    ('rows', 'sentence'),
    [
        (  # deviation 0.1 everywhere: half 4.3027 * 0.1 / sqrt(3) = 0.248
            [(13, 13.1, 12.9), (14, 14, 14), (16.1, 16, 15.9)],
            'scfs against random: +3.0 ± 0.2 AP with 50 annotated images; '
            '+2.0 ± 0.0 with 100; +0.0 ± 0.2 with 400 (not told from 0). For '
            'the 13.0 AP that scfs reaches with 50 annotated images, random '
            'needs about 141: it saves 91.',
        ),
        (
            [(17, 17.1, 16.9)] * 3,
            'For the 17.0 AP that scfs reaches with 50 annotated images, '
            'random needs more than 400: it saves more than 350.',
        ),
        ([(9, 9, 9)] * 3, 'It saves no annotated images.'),
        (
            [(9, 10, 14), (12, 12, 13), (16, 16, 16)],
            'Whether it saves annotated images, 3 seeds cannot tell.',
        ),
    ],
)
def test_sentences(rows, sentence):
    assert describe('scfs', curve(*rows), 'random', BASE).endswith(sentence)


def test_sentence_of_one_seed_or_none():
    one = {50: {0: 10.0}}
    assert describe('scfs', {50: {0: 14.0}}, 'random', one) == (
        'scfs against random: +4.0 AP with 50 annotated images. A single seed '
        'has no interval: it cannot tell these differences from chance.'
    )
    assert describe('scfs', {}, 'random', one) == (
        'scfs and random have no finished run in common.'
    )


def test_tables():
    curves = dict(
        random=BASE, scfs={50: {0: 13.0, 1: 15.0}, 400: {2: 17.0}}, dino={}
    )
    first, second = make_tables(curves, 'AP^b')
    assert [row.cells(first.columns) for row in first.rows] == [
        ['random', '3', '10.0 ± 0.0', '12.0 ± 0.0', '16.0 ± 0.0', 'random/*'],
        ['scfs', '1-2', '14.0 ± 12.7', '-', '17.0', 'scfs/*'],
    ]
    assert [row.cells(second.columns) for row in second.rows] == [
        ['scfs', '1-2', '4.0 ± 12.7', '1.0', 'scfs/*']
    ]
    assert second.title == 'AP^b, less that of random at the same seed'
    assert len(make_tables(dict(random=BASE), 'AP^b')) == 1
