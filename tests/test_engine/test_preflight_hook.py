# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Runs of mmpretrain's algorithms that are refused before they start.

Whole runs of DINO and SCFS are in test_training.py.
"""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import ConstantLR, CosineAnnealingLR, OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from mmscfs.datasets import ImageFiles
from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.engine.hooks import PreflightHook, preflight_hook

BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
CONTRASTIVE = dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'))
WIDTHS = dict(in_channels=64, hid_channels=8, out_channels=8)


def build(kind, neck, head=CONTRASTIVE, norm='BN', **settings):
    backbone = BACKBONE | dict(norm_cfg=dict(type=norm))
    neck = WIDTHS | neck
    settings |= dict(type=kind, backbone=backbone, neck=neck, head=head)
    return MODELS.build(settings)


def moco(queue_len=64, **widths):
    neck = dict(type='MoCoV2Neck', with_avg_pool=True, **widths)
    return build('MoCo', neck, queue_len=queue_len, feat_dim=8)


def swav(*num_crops):
    loss = dict(type='SwAVLoss', feat_dim=8, num_crops=num_crops)
    head = dict(type='SwAVHead', loss=loss)
    return build('SwAV', dict(type='SwAVNeck'), head)


def simclr(norm='BN'):
    return build('SimCLR', dict(type='NonLinearNeck', num_layers=2), norm=norm)


def fly(
    model,
    images=8,
    batch=4,
    sizes=(32, 32),
    drop_last=True,
    precision='fp32',
    channels=3,
):
    """Check a run of blank views."""
    views = [torch.zeros(channels, s, s) for s in sizes]
    # As PackInputs hands on an image that no transform made views of.
    sample = dict(inputs=views if len(views) > 1 else views[0])
    loader = DataLoader([sample] * images, batch, drop_last=drop_last)
    runner = SimpleNamespace(
        model=model,
        train_dataloader=loader,
        optim_wrapper=SimpleNamespace(precision=precision),
        param_schedulers=[],
    )
    PreflightHook().before_train(runner)


def test_good_runs_pass_and_stay_as_they_were():
    model = moco()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fly(model)
    fly(model, sizes=(224, 224))
    fly(model, precision='bf16')
    fly(model, sizes=(16, 16))
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    fly(simclr(), images=7, drop_last=False)  # three at the end
    fly(moco(), drop_last=False)  # no batch is smaller
    fly(swav(2))
    fly(swav(2, 2), sizes=(32, 32, 24, 24))


@pytest.mark.parametrize(
    ('make', 'settings', 'message'),
    [
        (
            lambda: moco(66),
            {},
            r'model.queue_len=66 must be a multiple of the 4 images of a '
            r'step \(train_dataloader.batch_size=4 on each of 1 processes\)'
            '.*set it to 64,',
        ),
        (
            moco,
            dict(images=10, drop_last=False),
            'drop_last=False .*batch of 2 images.*set drop_last',
        ),
        (
            moco,
            dict(sizes=[32] * 10),
            "type='MoCo' takes 2 views.*makes 10: .*num_local=0",
        ),
        (
            lambda: swav(2, 6),
            dict(sizes=[32] * 4),
            r'num_crops=\[2, 6\] are 8 views .*makes 4: .*num_crops=\[2, num',
        ),
        (
            lambda: moco(in_channels=2048),
            {},
            r'model.neck.in_channels=2048, but .* ResNet has 64 channels: '
            'set model.neck.in_channels=64',
        ),
        (
            moco,
            dict(channels=5),
            'images have 5 channels, but model.backbone takes 3: set '
            'model.backbone.in_channels=5',
        ),
        # Of 16 px a ResNet makes 1x1 before its last stride, of 32 px 2x2.
        (
            moco,
            dict(sizes=(16, 16), precision='bf16'),
            r'stride \(2, 2\) gets a map of \(1, 1\).*precision=.fp32.',
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
            dict(sizes=[32] * 5, batch=1),
            'batches of one',
        ),
    ],
)
def test_what_cannot_succeed_is_refused(make, settings, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        fly(model, **settings)
    # Nothing is left behind in the model.
    if hasattr(model, 'backbone'):
        model.eval().backbone(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_batches_of_one(norm, monkeypatch):
    model = simclr(norm)
    # On a GPU; forward passes need one.
    monkeypatch.setattr(preflight_hook, 'check_neck', lambda *_: None)
    with pytest.raises(ValueError, match='batch_size=1 makes batches of one'):
        fly(model, batch=1)
    with pytest.raises(ValueError, match='batch_size=4 .* out of 5.*drop_la'):
        fly(model, images=5, drop_last=False)
    fly(model, images=5)
    # Several processes share the statistics of a synchronized norm; but the
    # neck's is not.
    monkeypatch.setattr(preflight_hook, 'get_world_size', lambda: 2)
    model.neck = nn.Linear(64, 8)
    if norm == 'SyncBN':
        fly(model, batch=1)
    else:
        with pytest.raises(ValueError, match='batches of one'):
            fly(model, batch=1)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'data_preprocessor.type': 'SelfSupDataPreprocessor'},
            'does not know',
        ),
        (
            {'train_dataloader.dataset.pipeline.2.meta_keys': ('img_path',)},
            "PackInputs does not hand on 'colors'",
        ),
    ],
)
def test_colors_left_to_nobody(tiny_run, change, message):
    tiny_run.train_dataloader.dataset.pipeline[1].color_on_device = True
    tiny_run.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(tiny_run).train()


def test_a_rate_that_rises_to_its_end_is_told():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer)
    # As mmengine's constructors of groups leave it.
    wrapper.base_param_settings = dict(
        params=torch.tensor([0.0]), **optimizer.defaults
    )

    def cosine(**end):
        """A schedule after a constant one, which has no end."""
        return [
            ConstantLR(wrapper, factor=1.0),
            CosineAnnealingLR(wrapper, T_max=10, **end),
        ]

    assert not [*preflight_hook.rising_rates(cosine(eta_min=0.0048))]
    for group in optimizer.param_groups:  # as Runner.scale_lr
        group['lr'] = group['initial_lr'] = 0.1 * 8 / 256
    # On purpose, and of several optimizers.
    assert not [*preflight_hook.rising_rates(cosine(eta_min_ratio=10.0))]
    rising = cosine(eta_min=0.0048)
    assert not [*preflight_hook.rising_rates(dict(a=rising))]
    (found,) = preflight_hook.rising_rates(rising)
    for text in (
        'param_scheduler.1.eta_min=0.0048 is above',
        '0.003125, which will rise',
        'eta_min=0.00015, the share',
    ):
        assert text in found


class Shuffled(ImageFiles):
    """Gets its images by a list, as ClassBalancedDataset does."""

    def __getitem__(self, idx):
        return super().__getitem__([*range(len(self))][idx])


@pytest.mark.parametrize(
    ('kind', 'sampler', 'culprit'),
    [
        (ImageFiles, 'KeyedSampler', ''),
        (Shuffled, 'KeyedSampler', 'Shuffled'),
        (ImageFiles, 'DefaultSampler', 'DefaultSampler'),
    ],
)
def test_views_that_depend_on_the_workers_are_told(
    tiny_run, kind, sampler, culprit, caplog
):
    tiny_run.train_dataloader.dataset.type = kind
    tiny_run.train_dataloader.sampler.type = sampler
    runner = Runner.from_cfg(tiny_run)
    caplog.set_level('WARNING')
    runner.logger.addHandler(caplog.handler)
    assert len(runner.train_loop.dataloader) == 4
    runner.param_schedulers = []
    PreflightHook().before_train(runner)
    told = f'{culprit} hides from MultiCrop which image' in caplog.text
    assert told == bool(culprit)


def test_some_images_are_decoded_before_a_run(tiny_run):
    runner = Runner.from_cfg(tiny_run)
    data = runner.train_loop.dataloader.dataset
    path = data.get_data_info(len(data) - 1)['img_path']
    with open(path, 'r+b') as file:
        file.truncate(100)
    with pytest.raises(UnreadableImageError) as caught:
        runner.train()
    assert runner.iter == 0
    for text in (path, "on_error='skip'", f'{data.img_prefix!r} --decode'):
        assert text in str(caught.value)
    data.on_error = 'skip'
    data.check_some()
