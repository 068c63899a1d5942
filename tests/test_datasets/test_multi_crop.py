# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What MultiCrop makes of an image and a key.

test_crop_statistics.py has its random draws, test_color.py its colors, and
tests/test_models/test_data_preprocessor.py those that the device makes.
"""

import cv2
import numpy as np
import pytest
import torch
from crop_images import (
    NO_COLOR,
    NO_JITTER,
    SIDE,
    make_views,
    noise,
    only,
    photo,
    plain,
)
from mmengine.runner import Runner

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey


@pytest.mark.parametrize(
    ('height', 'width', 'box'),
    [(3, 200, (0, 98, 3, 4)), (200, 3, (98, 0, 4, 3)), (1, 1, (0, 0, 1, 1))],
)
def test_largest_central_box_where_none_fits(height, width, box):
    transform = MultiCrop(global_scale=(1, 1))
    for row in transform.draw(SampleKey(0)):
        assert transform.crop_box(height, width, 0, row) == box


@pytest.mark.parametrize('side', [5, 13, 16, 31])
def test_opencvs_enlarging_and_slight_shrinking_is_bicubic(side):
    image = cv2.GaussianBlur(noise(side, side), (0, 0), 0.8)
    views = make_views(only(filters='opencv'), image, images=1)[0]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    wanted = torch.nn.functional.interpolate(
        pixels, (SIDE, SIDE), mode='bicubic', align_corners=False
    )
    wanted = wanted.round().clamp(0, 255)[0].numpy()
    assert np.abs(views - wanted).max() <= 1


def test_opencvs_shrinking_to_half_or_less_averages():
    image = noise(4 * SIDE, 4 * SIDE)
    views = make_views(only(filters='opencv'), image, images=1)[0]
    blocks = image.reshape(SIDE, 4, SIDE, 4, 3).mean((1, 3))
    assert np.abs(views - blocks.transpose(2, 0, 1)).max() <= 0.5


def test_crops_tell_what_the_views_show():
    """Box and flip, read off the colors of the image's own places."""
    rows, columns = np.mgrid[:240, :200].astype(np.uint8)
    image = np.dstack([rows, columns, np.zeros_like(rows)])
    transform = only(
        'global_scale', 'local_scale', 'ratio', flip_prob=0.5, num_local=3
    )
    flips = []
    for index in range(40):
        results = transform(dict(img=image, sample_idx=SampleKey(index, 0)))
        crops = results['crops']
        assert crops.shape == (5, 5)
        assert crops.dtype == np.float32
        for view, crop in zip(results['img'], crops.tolist(), strict=True):
            left, top, right, bottom, flipped = crop
            down = view[0].float().mean(1)
            across = view[1].float().mean(0)
            if flipped:
                across = across.flip(0)
            # The first and last samples lie half a sample inside the box.
            for values, start, end in (
                (down, top, bottom),
                (across, left, right),
            ):
                half = (end - start) / SIDE / 2
                assert abs(values[0] - (start + half - 0.5)) < 1.5
                assert abs(values[-1] - (end - half - 0.5)) < 1.5
            flips.append(flipped)
    assert 0.3 < np.mean(flips) < 0.7


# Keys


def equal(left, right):
    pairs = zip(left, right, strict=True)
    return [torch.equal(a, b) for a, b in pairs]


SMALL = dict(global_size=32, local_size=16, num_local=4)


def test_same_key_same_views_other_key_other_views():
    transform, image = MultiCrop(**SMALL), photo(60, 80)

    def make(*key):
        return transform(dict(img=image, sample_idx=SampleKey(*key)))['img']

    first = make(3, 5, 7)
    np.random.rand()  # a global state has no say
    assert all(equal(first, make(3, 5, 7)))
    for key in ((4, 5, 7), (3, 6, 7), (3, 5, 8), (5, 3, 7), (7, 5, 3)):
        assert not any(equal(first, make(*key)))


def test_more_local_views_leave_the_others_as_they_were():
    image = photo(60, 80)
    views = {
        n: MultiCrop(**(SMALL | dict(num_local=n)))(
            dict(img=image, sample_idx=SampleKey(9, 2, 4))
        )['img']
        for n in (0, 3, 8)
    }
    for n in (0, 3):
        assert all(equal(views[n], views[8][: 2 + n]))


def test_colors_left_to_the_device_change_nothing_else():
    """The views are those without colors; the boxes are always the same."""
    plain, off = MultiCrop(**SMALL, **NO_COLOR), MultiCrop(**SMALL)
    on = MultiCrop(**SMALL, color_on_device=True)
    for index in range(10):
        bare, colored, left = (
            crop(dict(img=noise(50, 60), sample_idx=SampleKey(index)))
            for crop in (plain, off, on)
        )
        assert np.array_equal(left['crops'], colored['crops'])
        assert all(equal(bare['img'], left['img']))
        assert 'colors' not in colored
        assert left['colors'].shape == (6, 12)
        assert left['colors'].dtype == np.float32


def test_without_a_key_numpys_generator_decides():
    transform, image = MultiCrop(**SMALL), photo(60, 80)

    def make(**results):
        return transform(dict(img=image, **results))['img']

    np.random.seed(11)
    first, second = make(), make(sample_idx=0)
    assert not any(equal(first, second))
    np.random.seed(11)
    assert all(equal(first, make()))
    assert all(equal(second, make(sample_idx=0)))


def test_batches_do_not_depend_on_the_workers(image_folder):
    steps = [dict(type='LoadImage'), dict(type='MultiCrop', **SMALL)]
    dataset = dict(
        type='ImageFiles',
        data_root=str(image_folder),
        data_prefix='train',
        pipeline=[*steps, dict(type='PackInputs')],
    )

    def build(num_workers):
        settings = dict(
            batch_size=4,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            dataset=dataset,
            sampler=dict(type='KeyedSampler'),
        )
        return Runner.build_dataloader(settings, seed=3)

    def read(loader, epoch):
        """Return indices and views of an epoch."""
        loader.sampler.set_epoch(epoch)
        indices, views = [], []
        for batch in loader:
            indices += [sample.sample_idx for sample in batch['data_samples']]
            views += [view for part in batch['inputs'] for view in part]
        return indices, [view.numpy().tobytes() for view in views]

    epochs = {}
    for num_workers in (0, 1, 2):
        loader = build(num_workers)
        # The same workers serve both epochs.
        epochs[num_workers] = [read(loader, epoch) for epoch in (0, 1)]
    assert epochs[0] == epochs[1] == epochs[2]
    # A run that resumes at epoch 1 is one of them too.
    assert read(build(0), 1) == epochs[0][1]
    (first, views), (second, others) = epochs[0]
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second
    # No view of an epoch comes again in the other.
    assert len(set(views)) == len(set(others)) == 16 * 6
    assert not {*views} & {*others}


def test_a_view_goes_through_the_stated_steps():
    """A fully augmented view, from the parts that other tests verify."""
    image = photo(40, 40)
    transform = MultiCrop(
        global_size=40,
        num_local=0,
        global_scale=(1, 1),
        ratio=(1, 1),
        flip_prob=1,
        jitter_prob=1,
        **(NO_JITTER | dict(brightness=0.5)),
        grey_prob=1,
        blur_prob=(1, 1, 1),
        blur_sigma=(1, 1),
        solarize_prob=(1, 1, 1),
        solarize_threshold=90,
    )
    views = transform(dict(img=image.copy(), sample_idx=SampleKey(0)))['img']
    for view in views:
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[0], view[2])
    grey = image[:, ::-1].astype(float) @ [0.114, 0.587, 0.299]
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2

    def wanted(factor):
        dimmed = np.clip(factor * grey, 0, 255)
        padded = np.pad(dimmed, 3, mode='reflect')
        windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
        blurred = (windows * kernel).sum((2, 3))
        return np.where(blurred < 90, blurred, 255 - blurred)

    candidates = np.stack([wanted(f) for f in np.linspace(0.5, 1.5, 501)])
    for view in views:
        # The factor is unknown: some factor explains the whole view.
        errors = np.median(np.abs(candidates - view[0].numpy()), (1, 2))
        assert errors.min() <= 0.5
        assert np.median(errors) > 5


# Output


def test_views_keep_the_channel_order_and_the_image():
    image = plain(10, 20, 30)
    views = make_views(only(), image, images=1)[0]
    assert (views == np.reshape([10, 20, 30], (3, 1, 1))).all()
    before = noise(50, 70)
    image = before.copy()
    MultiCrop(**SMALL)(dict(img=image))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    'shape', [(1, 1), (3, 200), (200, 3), (2, 2), (64, 1000)]
)
def test_small_and_narrow_images(shape):
    transform = MultiCrop(**SMALL)
    for index in range(20):
        views = transform(
            dict(img=noise(*shape), sample_idx=SampleKey(index))
        )['img']
        sides = [view.shape[-1] for view in views]
        assert sides == [32, 32, 16, 16, 16, 16]
        assert {view.shape[0] for view in views} == {3}
        assert {view.dtype for view in views} == {torch.uint8}
        assert all(view.is_contiguous() for view in views)


def test_an_image_from_a_grey_file(tmp_path):
    from mmscfs.datasets import LoadImage

    path = str(tmp_path / 'grey.png')
    assert cv2.imwrite(path, noise(40, 60)[..., 0])
    results = LoadImage()(dict(img_path=path, sample_idx=SampleKey(0)))
    assert results['img'].shape == (40, 60, 3)
    views = MultiCrop(**SMALL)(results)['img']
    for view in views:
        assert view.shape[0] == 3
        # Grey has no hue to turn and no saturation.
        channels = view.numpy().astype(int)
        assert np.ptp(channels, axis=0).max() <= 1


# Settings


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('global_size', 0),
        ('local_size', -96),
        ('num_local', -1),
        ('global_scale', (0, 1)),
        ('global_scale', (0.5, 0.25)),
        ('global_scale', 0.5),
        ('ratio', (4 / 3, 3 / 4)),
        ('flip_prob', 1.1),
        ('brightness', 1.5),
        ('hue', 0.6),
        ('blur_prob', (1, 0.1)),
        ('blur_sigma', (2, 0.1)),
        ('solarize_prob', ()),
        ('solarize_threshold', 257),
        ('filters', 'pillow'),
        ('color_on_device', 1),
    ],
)
def test_invalid_setting_is_named(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        MultiCrop(**{name: value})
    assert f'{name}={value!r}' in str(caught.value)


@pytest.mark.parametrize('name', ['blur_prob', 'solarize_prob'])
def test_invalid_probability_of_a_kind_is_named(name):
    with pytest.raises(ValueError, match=rf'{name}\[1\]=1.1'):
        MultiCrop(**{name: [0.5, 1.1, 0.5]})


@pytest.mark.parametrize('on_device', [False, True])
@pytest.mark.parametrize(
    ('kind', 'channels'),
    [(np.uint16, (3,)), (np.float32, (3,)), (np.uint8, (4, 2))],
)
def test_images_of_another_type_are_refused(kind, channels, on_device):
    """As other loaders give them: a view would be unset memory."""
    image = np.zeros((40, 50, *channels), kind)
    crop = MultiCrop(color_on_device=on_device)
    with pytest.raises(ValueError, match=r'must be uint8 \(H, W, C\)'):
        crop(dict(img=image))
