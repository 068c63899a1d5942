# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/dataset_converters/make_digit_cards.py."""

import cv2
import numpy as np
import pytest
from commands import load_tool

tool = load_tool('dataset_converters/make_digit_cards')


def make(out, *words):
    """Make twelve cards; return the exit code."""
    return tool.main(['--number', '12', *words, '--out', str(out)])


@pytest.fixture(scope='module')
def cards(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'cards'
    assert make(out) == 0
    return out


def test_gray_levels_and_extent(cards):
    for path in (cards / 'train').iterdir():
        card = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert card.shape == (96, 96)
        is_ink = card > 140  # halfway; the grain has a deviation of 4
        rows, columns = (np.flatnonzero(is_ink.any(axis)) for axis in (1, 0))
        sides = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.68 * 96 - 2 <= max(sides) <= 0.8 * 96 + 2
        assert np.median(card[is_ink]) == pytest.approx(185, abs=3)
        ground = card[cv2.dilate(is_ink.astype(np.uint8), np.ones((7, 7))) < 1]
        assert ground.mean() == pytest.approx(90, abs=0.5)
        assert ground.std() == pytest.approx(4, abs=0.6)


def test_a_card_depends_on_seed_and_place_alone(cards, tmp_path):
    assert make(tmp_path / 'more', '--number', '13') == 0
    assert make(tmp_path / 'other', '--seed', '1') == 0
    for path in (cards / 'train').iterdir():
        same, other = (
            (tmp_path / name / 'train' / path.name).read_bytes()
            for name in ('more', 'other')
        )
        assert same == path.read_bytes() != other
