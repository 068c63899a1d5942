# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Colors in batch and on the device, against MultiCrop's own by OpenCV."""

import contextlib
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


@pytest.mark.parametrize(
    ('settings', 'mean', 'largest'),
    [
        (OFF | dict(blur_prob=(1, 1, 1)), 0.25, 2),
        (OFF | dict(solarize_prob=(1, 1, 1), solarize_threshold=90), 0, 0),
        # All together, as a view usually is.
        (dict(hue=0, local_size=25), 0.3, 2),
        (dict(hue=0, local_size=40), 0.3, 2),
        (dict(num_local=0), 0.5, 12),
    ],
)
def test_views_are_those_of_opencv(settings, mean, largest):
    """Up to rounding; OpenCV's HSV has 8 bits."""
    wanted = make_batch(False, **settings)
    assert 'colors' not in wanted['data_samples'][0]
    given = make_batch(True, **settings)
    made = MultiCropDataPreprocessor()(given)['inputs']
    assert [s.colors.shape for s in given['data_samples']] == [
        (len(wanted['inputs']), 12)
    ] * IMAGES
    pairs = zip(wanted['inputs'], made, strict=True)
    difference = torch.cat([(a.float() - b).abs().flatten() for a, b in pairs])
    assert difference.mean() <= mean
    assert difference.max() <= largest


# The batch


@pytest.mark.parametrize('settings', [{}, RGB, RGB | dict(to_rgb=False)])
def test_without_colors_it_is_mmpretrains_to_the_bit(settings):
    theirs = SelfSupDataPreprocessor(**settings)
    ours = MultiCropDataPreprocessor(**settings)
    batch = make_batch(False)
    given = [view.clone() for view in batch['inputs']]
    wanted, got = theirs(batch), ours(batch)
    for a, b in zip(wanted['inputs'], got['inputs'], strict=True):
        assert torch.equal(a, b)
    assert [s.img_path for s in got['data_samples']] == [''] * IMAGES
    # The given views stay as they are.
    for a, b in zip(batch['inputs'], given, strict=True):
        assert torch.equal(a, b)
    # One tensor, as for validation.
    single = dict(inputs=given[0], data_samples=None)
    assert torch.equal(theirs(single)['inputs'], ours(single)['inputs'])


def test_colors_come_before_the_normalization_and_in_fp32():
    """A train step colors inside of its optimizer wrapper's autocast."""
    batch = make_batch(True)
    plain = MultiCropDataPreprocessor()(batch)['inputs']
    with torch.autocast('cpu', torch.bfloat16):
        done = MultiCropDataPreprocessor(**RGB)(batch)['inputs']
    mean, std = (torch.tensor(RGB[k]).view(3, 1, 1) for k in ('mean', 'std'))
    for view, normalized in zip(plain, done, strict=True):
        assert torch.equal((view.flip(1) - mean) / std, normalized)


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


@pytest.mark.parametrize('lost', [False, True])
def test_colors_that_get_lost_are_refused_in_any_wrapper(lost):
    """More of this in the tests of the hook that checks before a run."""
    pipeline = [
        dict(type='MultiCrop', color_on_device=True, **SIZES),
        dict(type='PackInputs', meta_keys=META_KEYS[: 2 if lost else 3]),
    ]
    dataset = Images(pipeline=pipeline, serialize_data=False)
    dataset = ConcatDataset([dataset, dataset])
    model = SimpleNamespace(data_preprocessor=MultiCropDataPreprocessor())
    refused = pytest.raises(ValueError, match="'img_path', 'crops', 'colors'")
    with refused if lost else contextlib.nullcontext():
        check_colors(model, dataset, dataset[0])


def test_a_sample_of_another_kind_passes():
    """As a list of tensors, without a pipeline or data samples."""
    model = SimpleNamespace(data_preprocessor=SelfSupDataPreprocessor())
    sample = dict(inputs=[torch.zeros(3, 8, 8)] * 2)
    check_colors(model, [sample], sample)
