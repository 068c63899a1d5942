# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import sys

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope

import mmscfs.models.shared_heads  # noqa: F401


def build(**settings):
    init_default_scope('mmdet')
    return MODELS.build(dict(type='SharedResStage', **settings))


def randomize(module):
    """Give every tensor of a module random values."""
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1)


@pytest.mark.parametrize(('depth', 'width'), [(18, 16), (50, 8), (101, 8)])
def test_it_is_the_last_stage_of_mmdets_resnet(depth, width):
    resnet = ResNet(depth, stem_channels=width, base_channels=width)
    randomize(resnet)
    stage = build(depth=depth, base_channels=width)
    stage.layer4.load_state_dict(resnet.layer4.state_dict())
    resnet.eval(), stage.eval()
    channels = width * (4 if depth == 18 else 16)
    features = torch.rand(2, channels, 14, 14)
    torch.testing.assert_close(stage(features), resnet.layer4(features))
    assert stage(features).shape == (2, 2 * channels, 7, 7)
    # The keys of a backbone: nothing to rename, nothing else.
    assert list(stage.state_dict()) == [
        key for key in resnet.state_dict() if key.startswith('layer4.')
    ]


def test_extra_norm_follows_the_stage():
    plain = build(depth=18, base_channels=4)
    extra = build(depth=18, base_channels=4, extra_norm=True)
    randomize(extra)
    missing = plain.load_state_dict(extra.state_dict(), strict=False)
    assert {key.split('.')[0] for key in missing.unexpected_keys} == {'norm'}
    assert not missing.missing_keys
    plain.eval(), extra.eval()
    features = torch.rand(3, 16, 6, 6)
    norm = extra.norm
    expected = F.batch_norm(
        plain(features),
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
    )
    torch.testing.assert_close(extra(features), expected)


def test_all_of_it_is_trained():
    stage = build(depth=18, base_channels=4, extra_norm=True)
    stage.init_weights()
    before = {key: value.clone() for key, value in stage.state_dict().items()}
    stage.train()
    stage(torch.randn(8, 16, 6, 6)).square().mean().backward()
    assert all(p.grad is not None for p in stage.parameters())
    changed = {
        key.rsplit('.', 1)[1]
        for key, value in stage.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {'running_mean', 'running_var', 'num_batches_tracked'}


def test_missing_mmdet_is_named(monkeypatch):
    for name in [*sys.modules]:
        if name.startswith('mmscfs.models.shared_heads'):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmdet', None)
    with pytest.raises(ImportError, match=r'needs mmdet: run `pip install'):
        import mmscfs.models.shared_heads  # noqa: F401


def test_detectors_of_many_channels():
    init_default_scope('mmdet')
    settings = dict(type='BandsDetDataPreprocessor', pad_size_divisor=32)
    mean, std = [0, 50, 100, 150, 200], [1, 2, 4, 5, 10]
    made = MODELS.build(dict(settings, mean=mean, std=std))
    image = torch.full((5, 40, 30), 100, dtype=torch.uint8)
    samples = [DetDataSample(metainfo=dict(img_shape=(40, 30)))]
    batch = made(dict(inputs=[image], data_samples=samples))['inputs']
    assert batch.shape == (1, 5, 64, 32)
    assert batch[0, :, 39, 29].tolist() == [100, 25, 0, -10, -10]
