# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""MultiCrop(color_on_device=True): what it cuts, and what it tells.

What becomes of the views is in tests/test_models/test_data_preprocessor.py.
"""

import cv2
import numpy as np
import pytest
import torch

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms import multi_crop
from mmscfs.datasets.transforms.color import (
    BRIGHTNESS,
    HUE,
    SATURATION,
    PendingColor,
    pack_colors,
)

SIZES = dict(global_size=24, local_size=16, num_local=4)
IMAGES = 150


def make(transform, index, seed=0):
    image = np.random.default_rng(3).integers(0, 256, (50, 60, 3), np.uint8)
    return transform(dict(img=image, sample_idx=SampleKey(index, seed)))


def test_pack_colors_by_hand():
    steps = [(SATURATION, 1.1), (HUE, -0.05), (BRIGHTNESS, 0.9)]
    nothing = BRIGHTNESS
    assert pack_colors(steps, True, 1.5, 128) == [
        *(SATURATION, HUE, BRIGHTNESS, SATURATION, nothing),
        *(1.1, -0.05, 0.9, 0.0, 1.0),
        1.5,
        128,
    ]
    assert pack_colors([], False, 0, 256) == [nothing] * 5 + [1] * 5 + [0, 256]
    assert len(steps) == 3


def test_boxes_flips_and_cuts_are_the_same():
    """The views are those without colors; the boxes are always the same."""
    plain = MultiCrop(
        **SIZES,
        jitter_prob=0,
        grey_prob=0,
        blur_prob=(0, 0, 0),
        solarize_prob=(0, 0, 0),
    )
    off, on = MultiCrop(**SIZES), MultiCrop(**SIZES, color_on_device=True)
    for index in range(10):
        bare, colored, left = (make(t, index) for t in (plain, off, on))
        assert np.array_equal(left['crops'], colored['crops'])
        for a, b in zip(bare['img'], left['img'], strict=True):
            assert torch.equal(a, b)
        assert 'colors' not in colored
        assert left['colors'].shape == (6, 12)
        assert left['colors'].dtype == np.float32


def test_the_numbers_are_what_opencv_is_told(monkeypatch):
    """Of every view: jitter in its order, grey, sigma and solarizing."""
    told = []

    def record(owner, name, write):
        original = getattr(owner, name)

        def spy(*args):
            write(*args)
            return original(*args)

        monkeypatch.setattr(owner, name, spy)

    def start(self, image, draws):
        told.append(dict(jitter=[], grey=False, sigma=0, threshold=256))

    record(MultiCrop, 'color', start)
    record(
        PendingColor,
        'jitter',
        lambda _, *step: told[-1]['jitter'].append(step),
    )
    record(PendingColor, 'grey', lambda _: told[-1].update(grey=True))
    record(
        cv2,
        'GaussianBlur',
        lambda view, size, sigma: told[-1].update(sigma=sigma),
    )
    record(
        multi_crop,
        'solarize',
        lambda view, threshold: told[-1].update(threshold=threshold),
    )
    settings = SIZES | dict(solarize_threshold=100)
    off = MultiCrop(**settings)
    on = MultiCrop(**settings, color_on_device=True)
    rows = []
    for index in range(IMAGES):
        make(off, index)
        done = len(told)
        rows += [*make(on, index)['colors']]
        assert len(told) == done  # it does nothing itself
    assert len(rows) == len(told) == 6 * IMAGES
    for row, one in zip(rows, told, strict=True):
        wanted = np.array(pack_colors(**one), np.float32)
        assert np.array_equal(row, wanted)
    # Everything occurred, and its absence.
    assert {len(one['jitter']) for one in told} == {0, 4}
    assert {one['grey'] for one in told} == {False, True}
    assert {one['threshold'] for one in told} == {100, 256}
    assert min(one['sigma'] for one in told) == 0
    assert max(one['sigma'] for one in told) > 1.9


@pytest.mark.parametrize('value', ['yes', 1, None])
def test_invalid_flag_is_named(value):
    with pytest.raises(ValueError, match='color_on_device') as caught:
        MultiCrop(color_on_device=value)
    assert f'color_on_device={value!r}' in str(caught.value)
