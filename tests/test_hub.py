# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The names by which mmengine and mmpretrain find what is here."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain import FeatureExtractor, get_model, list_models
from mmpretrain.models import ResNet
from PIL import Image
from safetensors.torch import load_file, save_file

from mmscfs import hub, patches
from mmscfs.checkpoint import read_checkpoint
from mmscfs.results import read_origin

ROOT = Path(__file__).parents[1]
DEMO = 'scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits'
CLOSE = dict(rtol=1e-4, atol=1e-4)


@pytest.fixture(scope='module')
def demo():
    """The demo's model, whose networks differ, and batch norms too."""
    model = get_model(DEMO)
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_((0.5 + noise) * (value if value.ndim > 1 else 1))
    return model


@pytest.fixture
def raw_checkpoint(demo, tmp_path):
    """A checkpoint as a pre-training writes it."""
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=demo.state_dict(), meta=dict(epoch=1)), path)
    return str(path)


@pytest.fixture
def image(tmp_path):
    """A file of 90 x 70 pixels."""
    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    pixels = cv2.resize(pixels, (90, 70), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(path), pixels)
    return str(path)


def plain_features(state, prefix, image):
    """Res2 to Res4 by a plain ResNet, of the image as Pillow reads it."""
    backbone = ResNet(
        18, stem_channels=16, base_channels=16, out_indices=(1, 2, 3)
    )
    backbone.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
    )
    # A short edge of 64 * 256 / 224, and 64 pixels of the center.
    resized = Image.open(image).convert('RGB').resize((93, 73), Image.BICUBIC)
    pixels = np.asarray(resized.crop((14, 4, 78, 68)), np.float64)
    pixels = (pixels - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    batch = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    backbone.eval()
    with torch.no_grad():
        return backbone(batch)


def test_a_config_inherits_by_name(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = 'mmscfs::scfs_r50.py'\n"
        'crop = dict(_base_.multi_crop, num_local=4)\n'
    )
    cfg = Config.fromfile(child)
    # mmengine would add a scope, which is not one of its registries.
    assert cfg.pop('crop') == dict(cfg.multi_crop, num_local=4)
    plain = Config.fromfile(ROOT / 'configs' / 'scfs_r50.py')
    assert cfg.to_dict() == plain.to_dict()
    # Names of other packages are as before.
    child.write_text("_base_ = 'mmdet::_base_/schedules/schedule_1x.py'\n")
    assert Config.fromfile(child).train_cfg.max_epochs == 12


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('scfs_r50.py', 'SCFS'),
        ('scfs_r50', 'SCFS'),
        # Not in our index: mmpretrain's has it.
        ('peers/byol_resnet50_16xb256-coslr-200e_in1k.py', 'BYOL'),
    ],
)
def test_a_config_is_found_by_its_name(name, kind):
    path = hub.find_config(f'mmscfs::{name}')
    assert Config.fromfile(path).model.type == kind


@pytest.mark.parametrize('name', ['none', 'scfs/../../setup', f'{__file__}'])
def test_a_name_leads_to_configs_alone(name):
    message = f"'mmscfs::{name}': the names are those below"
    with pytest.raises(FileNotFoundError, match=message):
        hub.find_config(f'mmscfs::{name}')


@pytest.mark.parametrize('method', ['scfs', 'dino'])
def test_the_weights_of_the_package(method):
    name = f'mmscfs::{method}_resnet18-w16_digit-cards'
    path = Path(hub.find_weights(name))
    assert hub.find_weights(f'{name}.safetensors') == str(path)
    assert path.stat().st_size < 5e6
    state = load_file(path)
    # By mmpretrain's list, offline; into both networks.
    recipe = f'{method}_resnet18-w16_1xb64-mcrop-coslr-40e_digit-cards'
    model = get_model(recipe, pretrained=True).state_dict()
    # By init_cfg, as detectors start.
    init_cfg = dict(type='Pretrained', _scope_='mmscfs', checkpoint=name)
    backbone = ResNet(
        18, stem_channels=16, base_channels=16, init_cfg=init_cfg
    )
    backbone.init_weights()
    assert state.keys() == backbone.state_dict().keys()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key])
        assert torch.equal(model[f'backbone.{key}'], value)
        assert torch.equal(model[f'teacher.backbone.{key}'], value)
    # How they were trained, in the file and on the card beside it.
    origin = read_origin(name)
    assert origin.label == f'{method.upper()} (digit-cards)'
    assert (origin.epochs, origin.network) == (40, 'teacher')
    card = path.with_suffix('.md').read_text()
    assert f'tools/train.py configs/{method}/{recipe}.py' in card


def test_unknown_weights_are_refused_with_the_names_there_are():
    name = '../weights/x'
    message = (
        f"no weights 'mmscfs::{name}': those of mmscfs are "
        'mmscfs::dino_resnet18-w16_digit-cards, '
        'mmscfs::scfs_resnet18-w16_digit-cards'
    )
    with pytest.raises(FileNotFoundError, match=f'^{message}$'):
        read_checkpoint(f'mmscfs::{name}')


def test_models_are_listed_once_among_those_of_mmpretrain():
    before = list_models()
    assert set(list_models('scfs')) == {
        'scfs_r50',
        *(path.stem for path in (ROOT / 'configs' / 'scfs').glob('*.py')),
    }
    assert 'dino_resnet50_8xb32-mcrop-coslr-200e_in1k' in before
    assert 'mocov2-co2_resnet50_8xb32-coslr-200e_in1k' in before
    assert 'byol_resnet50_16xb256-coslr-200e_in1k' in before
    patches.install()
    assert list_models() == before


def test_features_of_a_raw_checkpoint(demo, raw_checkpoint, image):
    state = demo.state_dict()
    extractor = FeatureExtractor(DEMO, pretrained=raw_checkpoint)
    expected = plain_features(state, 'teacher.backbone.', image)
    first, second = extractor([image, cv2.imread(image)], batch_size=2)
    assert len(first) == len(expected) == 3
    for maps in (first, second, *extractor(image, stage='backbone')):
        for own, plain in zip(maps, expected, strict=True):
            torch.testing.assert_close(own[None], plain, **CLOSE)
    for network, prefix in (
        ('teacher', 'teacher.backbone.'),
        ('student', 'backbone.'),
    ):
        (pooled,) = extractor(image, stage='neck', network=network)[0]
        plain = plain_features(state, prefix, image)[-1].mean((2, 3))
        torch.testing.assert_close(pooled[None], plain, **CLOSE)
    with pytest.raises(ValueError, match="stage='head' must be 'backbone'"):
        extractor(image, stage='head')


def test_an_exported_backbone_is_that_of_both_networks(
    demo, tmp_path, image, capsys
):
    state = demo.teacher.backbone.state_dict()
    path = tmp_path / 'backbone.safetensors'
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    extractor = FeatureExtractor(DEMO, pretrained=str(path))
    assert 'missing keys' not in capsys.readouterr().out
    expected = plain_features(state, '', image)[-1]
    for network in ('teacher', 'student'):
        found = extractor(image, network=network)[0][-1]
        torch.testing.assert_close(found[None], expected, **CLOSE)


def test_a_checkpoint_that_does_not_fit_is_refused(raw_checkpoint):
    model = get_model(DEMO, backbone=dict(base_channels=32))
    before = {key: v.clone() for key, v in model.state_dict().items()}
    with pytest.raises(ValueError, match='of another shape'):
        load_checkpoint(model, raw_checkpoint)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
