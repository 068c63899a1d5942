# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmpretrain.registry import DATASETS

from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.visualization import (
    ImageViews,
    View,
    draw_views,
    make_views,
    spread,
)
from mmscfs.visualization.views import to_rgb_image

CROP = dict(type='MultiCrop', global_size=32, local_size=16, num_local=3)


def build(folder, *pipeline):
    return DATASETS.build(
        dict(
            type='ImageFiles',
            data_root=str(folder),
            data_prefix='train',
            pipeline=[
                dict(type='LoadImage'),
                *pipeline,
                dict(type='PackInputs'),
            ],
        )
    )


def test_views_are_those_of_the_data_set(image_folder):
    data = build(image_folder, CROP)
    made = make_views(data, [3, 7], seed=5, epoch=2)
    for place, sample in zip([3, 7], made, strict=True):
        expected = data[SampleKey(place, 5, 2)]['inputs']
        assert len(sample.views) == len(expected) == 5
        for view, tensor in zip(sample.views, expected, strict=True):
            image = tensor.permute(1, 2, 0).numpy()[..., ::-1]
            assert np.array_equal(view.image, image)
        assert sample.name == f'class/{place:02d}.jpg'
        path = str(image_folder / f'train/class/{place:02d}.jpg')
        assert np.array_equal(sample.source, cv2.imread(path)[..., ::-1])
    other = make_views(data, [3], seed=5, epoch=3)[0]
    assert not np.array_equal(other.views[0].image, made[0].views[0].image)


@pytest.mark.parametrize(
    ('channels', 'shown'),
    [(2, [0, 0, 0]), (3, [2, 1, 0]), (4, [0, 1, 2]), (6, [0, 1, 2])],
)
def test_channels_that_are_shown(channels, shown):
    """Three are BGR; of others the first three."""
    image = np.arange(4 * 5 * channels, dtype=np.uint8)
    image = image.reshape(4, 5, channels)
    view = torch.from_numpy(image).permute(2, 0, 1)
    for given in (image, view):
        assert np.array_equal(to_rgb_image(given), image[..., shown])


@pytest.mark.parametrize('wrap', [False, True])
def test_pictures_skip_what_the_run_skips(image_folder, wrap):
    path = image_folder / 'train/class/03.jpg'
    path.write_bytes(path.read_bytes()[:100])
    data = build(image_folder, CROP)
    whole = ConcatDataset([data]) if wrap else data
    with pytest.raises(UnreadableImageError, match='03.jpg'):
        make_views(whole, [3])
    data.on_error = 'skip'
    made = make_views(whole, [3, 5], seed=5)
    assert [sample.name for sample in made] == ['class/04.jpg', 'class/05.jpg']
    expected = data[SampleKey(4, 5)]['inputs'][0].permute(1, 2, 0).numpy()
    assert np.array_equal(made[0].views[0].image, expected[..., ::-1])


def test_boxes_and_changes_are_what_was_done(image_folder):
    """Cut, flip and blur by hand: the view, and no change is left out."""
    crop = dict(CROP, jitter_prob=0, grey_prob=0, filters='opencv')
    data = build(image_folder, crop)
    checked = set()
    for sample in make_views(data, range(16)):
        for n, view in enumerate(sample.views):
            left, top, right, bottom = map(int, view.box)
            cut = sample.source[top:bottom, left:right]
            size = 32 if n < 2 else 16
            shrinks = min(cut.shape[:2]) >= 2 * size
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            image = cv2.resize(cut, (size, size), interpolation=how)
            for change in view.changes:
                checked.add(change.split()[0])
                if change == 'flip':
                    image = image[:, ::-1]
                elif change == 'solarize':
                    image = np.where(image < 128, image, 255 - image)
                else:  # its sigma is rounded
                    image = None
                    break
            if image is not None:
                assert np.array_equal(view.image, image)
    assert checked == {'flip', 'blur', 'solarize'}


def test_gray_views_are_said_to_be(image_folder):
    data = build(image_folder, dict(CROP, grey_prob=0.5))
    views = [v for s in make_views(data, range(8)) for v in s.views]
    gray = [bool(np.ptp(v.image, axis=2).max() == 0) for v in views]
    assert gray == ['gray' in v.changes for v in views]
    assert 5 < sum(gray) < 35


def test_colors_left_to_the_device_are_drawn(image_folder):
    data = build(image_folder, dict(CROP, color_on_device=True))
    plain = build(image_folder, CROP)
    (found,), (expected,) = (make_views(d, [1]) for d in (data, plain))
    for view, other in zip(found.views, expected.views, strict=True):
        assert np.array_equal(view.image, other.image)
    transform = data.pipeline.transforms[1]
    assert transform.color_on_device  # the data set's own is as it was


def test_other_pipelines_have_no_boxes(image_folder):
    view = dict(type='RandomResizedCrop', scale=24)
    data = build(
        image_folder,
        dict(type='MultiView', num_views=2, transforms=[[view]]),
    )
    (sample,) = make_views(data, [0])
    assert [v.image.shape for v in sample.views] == [(24, 24, 3)] * 2
    assert [v.box for v in sample.views] == [None, None]
    assert sample.source.shape == (72, 80, 3)
    assert draw_views([sample]).shape[0] > 224


def test_boxes_are_drawn_where_they_lie():
    """The frame of a box is where its edges are, scaled to the sheet."""
    view = View(np.zeros((8, 8, 3), np.uint8), (30, 30, 90, 60))
    source = np.full((100, 100, 3), 255, np.uint8)
    picture = draw_views([ImageViews('a.jpg', source, [view])])
    # 224 px for 100 px, from (16, 90) on.
    blue = (np.abs(picture.astype(int) - (0, 114, 178)).max(-1) < 40)[:, :240]
    y, x = np.nonzero(blue)
    assert abs(x.min() - (16 + 67.2)) <= 3
    assert abs(x.max() - (16 + 201.6)) <= 3
    assert abs(y.min() - (90 + 67.2)) <= 3
    assert abs(y.max() - (90 + 134.4)) <= 3


def test_places_are_spread():
    assert spread(600, 4) == [0, 151, 302, 453]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(8, 4) == [0, 2, 4, 6]
    assert spread(5, 3) == [0, 2, 4]
    assert spread(16, 12)[-1] == 14
    assert spread(0, 4) == []
