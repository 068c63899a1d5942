# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Colours in batch and on the device, against MultiCrop's own by OpenCV."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, Compose, ConcatDataset
from mmengine.dataset import default_collate as collate
from mmengine.runner import Runner
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS
from sklearn.datasets import load_sample_image

from mmscfs.datasets.samplers import SampleKey
from mmscfs.models.utils import MultiCropDataPreprocessor, check_colors

IMAGES = 12
SIZES = dict(global_size=40, local_size=24, num_local=3)
OFF = dict(
    jitter_prob=0,
    grey_prob=0,
    blur_prob=(0, 0, 0),
    solarize_prob=(0, 0, 0),
)
STILL = dict(brightness=0, contrast=0, saturation=0, hue=0)
RGB = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
META_KEYS = ('img_path', 'crops', 'colors')


def photos():
    """Return small BGR photographs, and noise, which is of any color."""
    photo = load_sample_image('china.jpg')[..., ::-1]
    photo = cv2.resize(photo, (120, 90), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(7).integers(0, 256, (60, 60, 3), np.uint8)
    return [photo, noise]


def make_batch(on, meta_keys=META_KEYS, **settings):
    """Return a batch of IMAGES, as the loader collates it."""
    crop = dict(type='MultiCrop', color_on_device=on, **(SIZES | settings))
    pack = dict(type='PackInputs', meta_keys=meta_keys)
    pipeline, images = Compose([crop, pack]), photos()
    return collate(
        [
            pipeline(
                dict(img=images[i % 2], img_path='', sample_idx=SampleKey(i))
            )
            for i in range(IMAGES)
        ]
    )


def differences(**settings):
    """Return the absolute differences of both paths, in levels of 255."""
    plain = MultiCropDataPreprocessor()
    wanted = make_batch(False, **settings)
    assert 'colors' not in wanted['data_samples'][0]
    given = make_batch(True, **settings)
    done = plain(given)
    assert [s.colors.shape for s in given['data_samples']] == [
        (len(wanted['inputs']), 12)
    ] * IMAGES
    pairs = zip(wanted['inputs'], done['inputs'], strict=True)
    return torch.cat([(a.float() - b).abs().flatten() for a, b in pairs])


# One after the other


@pytest.mark.parametrize(
    ('settings', 'mean', 'largest'),
    [
        (OFF, 0, 0),
        (OFF | STILL | dict(jitter_prob=1), 0, 0),
        (OFF | STILL | dict(jitter_prob=1, brightness=0.4), 0.02, 1),
        (OFF | STILL | dict(jitter_prob=1, contrast=0.4), 0.02, 1),
        (OFF | STILL | dict(jitter_prob=1, saturation=0.2), 0.1, 1),
        (OFF | STILL | dict(jitter_prob=1, hue=0.1), 0.5, 8),
        (OFF | dict(jitter_prob=1, hue=0), 0.3, 2),
        (OFF | dict(grey_prob=1), 0.02, 1),
        (OFF | dict(blur_prob=(1, 1, 1)), 0.25, 2),
        (OFF | dict(solarize_prob=(1, 1, 1)), 0, 0),
        (OFF | dict(solarize_prob=(1, 1, 1), solarize_threshold=90), 0, 0),
        # All together, as a view usually is.
        (dict(hue=0), 0.3, 2),
        ({}, 0.5, 12),
    ],
)
def test_views_are_those_of_opencv(settings, mean, largest):
    """Up to rounding; OpenCV's HSV has 8 bits."""
    difference = differences(**settings)
    assert difference.mean() <= mean
    assert difference.max() <= largest


def test_a_wrong_step_would_show():
    """The tolerance is far below what any operation does to a view."""
    bare = make_batch(True)['inputs']
    for settings in (dict(jitter_prob=1), dict(blur_prob=(1, 1, 1))):
        made = make_batch(False, **(OFF | settings))['inputs']
        assert (made[0].float() - bare[0].float()).abs().mean() > 5


@pytest.mark.parametrize(
    'sizes', [dict(num_local=0), dict(local_size=40), dict(local_size=25)]
)
def test_other_sizes_and_numbers_of_views(sizes):
    difference = differences(hue=0, **sizes)
    assert difference.mean() <= 0.3
    assert difference.max() <= 2


# The batch


@pytest.mark.parametrize(
    'settings', [RGB, {}, RGB | dict(to_rgb=False), dict(to_rgb=True)]
)
def test_without_colors_it_is_mmpretrains_to_the_bit(settings):
    theirs = SelfSupDataPreprocessor(**settings)
    ours = MultiCropDataPreprocessor(**settings)
    batch = make_batch(False)
    wanted, got = theirs(batch), ours(batch)
    for a, b in zip(wanted['inputs'], got['inputs'], strict=True):
        assert torch.equal(a, b)
    assert [s.img_path for s in got['data_samples']] == [''] * IMAGES
    # The given views stay as they are.
    again = make_batch(False)['inputs']
    for a, b in zip(batch['inputs'], again, strict=True):
        assert torch.equal(a, b)
    # One tensor, as for validation.
    single = dict(inputs=batch['inputs'][0], data_samples=None)
    assert torch.equal(theirs(single)['inputs'], ours(single)['inputs'])


def test_colors_come_before_the_normalization():
    batch = make_batch(True)
    plain = MultiCropDataPreprocessor()(batch)['inputs']
    done = MultiCropDataPreprocessor(**RGB)(batch)['inputs']
    for view, normalized in zip(plain, done, strict=True):
        mean, std = (
            torch.tensor(RGB[k]).view(3, 1, 1) for k in RGB if k[0] != 't'
        )
        assert torch.equal((view.flip(1) - mean) / std, normalized)


def test_autocast_changes_nothing():
    """A train step colors inside of its optimizer wrapper's autocast."""
    batch, preprocessor = make_batch(True), MultiCropDataPreprocessor(**RGB)
    wanted = preprocessor(batch)['inputs']
    with torch.autocast('cpu', torch.bfloat16):
        got = preprocessor(batch)['inputs']
    for a, b in zip(wanted, got, strict=True):
        assert torch.equal(a, b)


def test_a_run_takes_the_views(tiny_run):
    """One setting of the paper's config is enough."""
    tiny_run.model.data_preprocessor = tiny_run.data_preprocessor
    model = MODELS.build(tiny_run.model)
    views = {}
    for on in (False, True):
        tiny_run.train_dataloader.dataset.pipeline[1].color_on_device = on
        loader = Runner.build_dataloader(tiny_run.train_dataloader, seed=1)
        batch = next(iter(loader))
        assert ('colors' in batch['data_samples'][0]) == on
        check_colors(model, loader.dataset, loader.dataset[0])
        data = model.data_preprocessor(batch, True)
        views[on] = data['inputs']
    for a, b in zip(views[False], views[True], strict=True):
        levels = (a - b).abs() * model.data_preprocessor.std
        assert levels.mean() < 0.5
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()


# Refused before the run


class Images(BaseDataset):
    def load_data_list(self):
        return [dict(img=np.zeros((9, 9, 3), np.uint8), img_path='')] * 2


def check(preprocessor, on=True, meta_keys=META_KEYS, wrap=False):
    pipeline = [
        dict(type='MultiCrop', color_on_device=on, **SIZES),
        dict(type='PackInputs', meta_keys=meta_keys),
    ]
    dataset = Images(pipeline=pipeline, serialize_data=False)
    if wrap:
        dataset = ConcatDataset([dataset, dataset])
    model = SimpleNamespace(data_preprocessor=preprocessor)
    check_colors(model, dataset, dataset[0])


@pytest.mark.parametrize('wrap', [False, True])
def test_colors_that_get_lost_are_refused(wrap):
    ours, theirs = MultiCropDataPreprocessor(), SelfSupDataPreprocessor()
    check(ours, wrap=wrap)
    check(ours, on=False, wrap=wrap)
    check(theirs, on=False, meta_keys=('img_path',), wrap=wrap)
    for preprocessor in (ours, theirs):
        with pytest.raises(ValueError, match='color_on_device=True') as caught:
            check(preprocessor, meta_keys=('img_path', 'crops'), wrap=wrap)
        assert f'meta_keys={META_KEYS}' in str(caught.value)
    with pytest.raises(ValueError, match='color_on_device=True') as caught:
        check(theirs, wrap=wrap)
    assert 'SelfSupDataPreprocessor does not know' in str(caught.value)
    assert "type='MultiCropDataPreprocessor'" in str(caught.value)


def test_a_sample_of_another_kind_passes():
    """As a list of tensors, without a pipeline or data samples."""
    model = SimpleNamespace(data_preprocessor=SelfSupDataPreprocessor())
    sample = dict(inputs=[torch.zeros(3, 8, 8)] * 2)
    check_colors(model, [sample], sample)
