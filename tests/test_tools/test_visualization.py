# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/visualization."""

import importlib
import json
import os
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT
from detection_data import make_coco
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

FOLDER = ROOT / 'tools' / 'visualization'
CONFIGS = ROOT / 'configs'
DETECTOR = CONFIGS / 'detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
KNN = CONFIGS / 'classification/knn/knn_resnet18-w16_digits.py'
PREPROCESSOR = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)


@pytest.fixture(scope='module', autouse=True)
def _siblings():
    """The tools import each other as scripts do."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def run(name, *words):
    """Run a tool in this process; return its exit code."""
    tool = importlib.import_module(name)
    try:
        return tool.main([str(word) for word in words])
    except SystemExit as error:
        return error.code


@pytest.fixture
def refuses(capsys):
    """Check that a tool refuses words with one line that matches."""

    def check(name, *words, match):
        capsys.readouterr()
        assert run(name, *words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert sum('error: ' in line for line in lines) == 1
        assert re.search(match, lines[-1]), lines[-1]

    return check


@pytest.fixture
def drawn(monkeypatch):
    """Return a list that gets the samples of every picture."""
    samples = []
    module = importlib.import_module('mmscfs.visualization')

    def keeping(draw):
        return lambda found, *words: (
            samples.extend(found) or draw(found, *words)
        )

    for name in ('draw_search_maps', 'draw_detections'):
        monkeypatch.setattr(module, name, keeping(getattr(module, name)))
    return samples


def save(model_cfg, path, load=None, **meta):
    """Save a raw pre-training checkpoint of ours; return the model."""
    model = MODELS.build(dict(model_cfg, _scope_='mmpretrain'))
    model.init_weights()
    for value in model.teacher.parameters():
        value.data.add_(0.1 * torch.randn_like(value))
    model_cfg = {k: v for k, v in model_cfg.items() if k != '_scope_'}
    crop = dict(type='MultiCrop', global_size=64, local_size=32)
    dataset = dict(pipeline=[load, crop] if load else [crop])
    cfg = dict(model=model_cfg, train_dataloader=dict(dataset=dataset))
    cfg = Config(dict(cfg, data_preprocessor=PREPROCESSOR))
    meta = dict(cfg=cfg.pretty_text, epoch=3) | meta
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return model


@pytest.fixture
def checkpoint(scfs_cfg, tmp_path):
    path = tmp_path / 'epoch_3.pth'
    save(scfs_cfg, path)
    return path


@pytest.fixture
def image(image_folder):
    return image_folder / 'train/class/00.jpg'  # 80 x 72 px


def knn_options(folder):
    dataset = 'test_dataloader.dataset'
    options = [f'{dataset}.data_root={folder}', f'{dataset}.data_prefix=train']
    return ['--cfg-options', *options, 'test_dataloader.num_workers=0']


def test_search_loads_images_as_the_pretraining_did(
    scfs_cfg, image, tmp_path, drawn
):
    """The same values in 12 bits and in 8 give the same maps."""
    gray, found = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE), []
    step = dict(type='LoadImage', value_range=(100, 100 + 255 * 15))
    for name, values, load in (
        ('eight', gray, None),
        ('deep', 100 + gray.astype(np.uint16) * 15, step),
    ):
        path = tmp_path / f'{name}.png'
        assert cv2.imwrite(str(path), values)
        torch.manual_seed(0)
        save(scfs_cfg, tmp_path / 'a.pth', load)
        words = [path, '--checkpoint', tmp_path / 'a.pth']
        assert run('vis_search', *words, '--out', tmp_path / 'o.png') == 0
        found.append(drawn.pop())
    for ours, theirs in zip(*(f.local_views for f in found), strict=True):
        assert np.array_equal(ours, theirs)
    maps = [next(iter(f.found.values()))['layer4'].mean for f in found]
    assert torch.equal(*maps)


def test_search_draws_the_checkpoints_maps(scfs_cfg, image, tmp_path, drawn):
    """The maps are those of the teacher, and of views cut by hand."""
    path, out = tmp_path / 'epoch_3.pth', tmp_path / 'maps.png'
    model = save(scfs_cfg, path).eval()
    boxes = ['0,0,40,36', '8,9,72,63']
    words = [image, '--checkpoint', path, '--boxes', *boxes, '--out', out]
    assert run('vis_search', *words) == 0
    assert cv2.imread(str(out)).shape[0] > 400
    (sample,) = drawn
    ((name, layers),) = sample.found.items()
    assert name.endswith('epoch_3 · teacher')
    assert list(layers) == ['layer2', 'layer3', 'layer4']

    whole, tile = sample.image, sample.local_views[0]
    source = Image.open(image).convert('RGB')
    for view, part, side in (
        # 72 px become 64, and 80 nearly 71: 64 by steps of 16.
        (whole, source, 64),
        # 36 px become 32, 40 become 36: 32 by steps of 16.
        (tile, source.crop((0, 0, 40, 36)), 32),
    ):
        # Columns first, as crops are resized.
        wanted = part.resize((part.width, side), Image.BICUBIC)
        wanted = wanted.resize((side, side), Image.BICUBIC)
        assert np.abs(view - np.asarray(wanted, int)).max() <= 2

    def maps(view):
        view = (view - PREPROCESSOR['mean']) / PREPROCESSOR['std']
        view = torch.from_numpy(view.transpose(2, 0, 1)).float()
        return model.teacher.backbone(view[None])[2][0]

    with torch.no_grad():
        keys, query = maps(whole), maps(tile).mean((1, 2), keepdim=True)
    expected = torch.cosine_similarity(query, keys, dim=0)
    torch.testing.assert_close(layers['layer4'].views[0], expected)


def test_search_compares_two_checkpoints(
    checkpoint, dino_cfg, image, tmp_path, drawn
):
    """DINO has no search layers, its ResNet's last stages are searched."""
    dino_cfg['backbone']['out_indices'] = (3,)
    other, out = tmp_path / 'dino.pth', tmp_path / 'maps.png'
    save(dino_cfg, other)
    words = ['--out', out, '--checkpoint', other, checkpoint]
    assert run('vis_search', image, *words, '--size', '48') == 0
    (sample,) = drawn
    assert [name.split(' · ')[1:] for name in sample.found] == [
        ['dino', 'teacher'],
        ['epoch_3', 'teacher'],
    ]
    for maps in sample.found.values():
        assert list(maps) == ['layer2', 'layer3', 'layer4']


def test_search_needs_no_config_for_a_resnet(
    tiny_run, scfs_cfg, image, tmp_path, drawn
):
    """The weights tell it; a config gives the same maps."""
    path, config = tmp_path / 'bare.pth', tmp_path / 'config.py'
    save(scfs_cfg, path, cfg=None)
    crop = tiny_run.train_dataloader.dataset.pipeline[1]
    crop.update(global_size=224, local_size=96)  # those without a config
    tiny_run.dump(config)
    words = [image, '--checkpoint', path, '--out', tmp_path / 'maps.png']
    words += ['--size', '64']
    for more in ([], ['--config', config]):
        assert run('vis_search', *words, *more) == 0
    maps = [next(iter(x.found.values()))['layer4'].mean for x in drawn]
    assert torch.equal(*maps)


def test_search_builds_nothing_of_a_checkpoints_config(
    scfs_cfg, image, tmp_path
):
    """mmengine would import and call whatever a "type" names."""
    mark, path = tmp_path / 'mark', tmp_path / 'evil.pth'
    words = [image, '--checkpoint', path, '--out', tmp_path / 'maps.png']
    evil = dict(type='os.system', command=f'touch {mark}')
    text = f'import os\nos.mkdir({str(mark)!r})\nmodel = ' + repr(
        dict(type='SCFS', backbone=evil)
    )
    save(scfs_cfg, path, cfg=text)
    assert run('vis_search', *words) == 0
    assert not mark.exists()


@pytest.mark.parametrize(
    'text',
    [
        "train_dataloader = 'x'",
        'train_dataloader = dict(dataset=dict(datasets=[1]))',
        'model = dict(search_layers=5)',
    ],
)
def test_a_config_that_cannot_be_used_is_named(
    scfs_cfg, image, tmp_path, refuses, text
):
    path, out = tmp_path / 'odd.pth', tmp_path / 'out.png'
    save(scfs_cfg, path, cfg=text)
    words = ['vis_search', image, '--checkpoint', path, '--out', out]
    refuses(*words, match=r"odd\.pth': the config .* name that of .* --config")


def test_a_network_that_has_diverged_is_refused(checkpoint, image, refuses):
    content = torch.load(checkpoint, weights_only=True)
    for value in content['state_dict'].values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    torch.save(content, checkpoint)
    words = ['--checkpoint', checkpoint, '--out', image.with_suffix('.png')]
    refuses('vis_search', image, *words, match='epoch_3.pth.*not finite')
    assert not image.with_suffix('.png').exists()


def test_search_refuses_what_it_cannot_draw(
    checkpoint, image, tmp_path, refuses
):
    broken = tmp_path / 'broken.py'
    broken.write_text('x = (import nothere')
    (own := tmp_path / 'own.png').write_bytes(image.read_bytes())
    (text := tmp_path / 'text.jpg').write_text('no image')
    flat = tmp_path / 'flat.pth'
    torch.save({'patch_embed.projection.weight': torch.ones(2, 2)}, flat)
    (vit,) = CONFIGS.glob('dino/dino_vit-small*.py')
    good = ['--checkpoint', checkpoint, '--out', tmp_path / 'maps.png']
    for words, expected in (
        ([text, *good], 'cannot read image'),
        ([image, *good, '--boxes', '0,0,81,72'], 'leaves .*00.jpg, .* 80 x '),
        ([image, *good, '--boxes', '9,9,9,20'], 'is not a box'),
        ([image, *good, '--size', '8'], '--size 8: must be 32 to 2048'),
        ([image, *good, '--config', broken], 'SyntaxError.*correct what'),
        ([image, *good[:2], '--out', checkpoint], 'must end in .png'),
        ([own, *good[:2], '--out', own], 'own.png: it is an input'),
        ([image, '--checkpoint', *[checkpoint] * 3], '3 are too many'),
        ([image, '--checkpoint', flat, *good[2:]], 'is not a plain ResNet'),
        (
            [image, '--checkpoint', flat, *good[2:], '--config', vit],
            'has no search layers',
        ),
    ):
        refuses('vis_search', *words, match=expected)
    assert [*tmp_path.glob('*.png')] == [own]


def test_browse_views(tiny_run, image_folder, tmp_path):
    """Names may have bytes that are not text, and a line's end."""
    folder = image_folder / 'train' / 'class'
    for path, name in zip(
        sorted(folder.iterdir()), (b'bad\xff.jpg', b'a\nb.jpg'), strict=False
    ):
        path.rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    config, out = tmp_path / 'config.py', tmp_path / 'new' / 'views.png'
    tiny_run.dump(config)
    words = [config, '--number', '3', '--out', out]
    assert run('browse_views', *words) == 0
    first = cv2.imread(str(out))
    assert run('browse_views', *words) == 0
    assert np.array_equal(cv2.imread(str(out)), first)
    assert run('browse_views', *words, '--seed', '1') == 0
    assert not np.array_equal(cv2.imread(str(out)), first)
    number = 'train_dataloader.dataset.pipeline.1.num_local=6'
    assert run('browse_views', *words, '--cfg-options', number) == 0
    assert cv2.imread(str(out)).shape[1] > first.shape[1]


def test_browse_views_refuses(tiny_run, tmp_path, refuses):
    config, out = tmp_path / 'config.py', tmp_path / 'views.png'
    gone = 'train_dataloader.dataset.data_root=gone'
    del tiny_run.train_dataloader.dataset.pipeline[1]
    tiny_run.dump(config)
    for words, expected in (
        ([config], 'has no MultiCrop and makes no list'),
        ([KNN], 'has no train_dataloader'),
        ([config, '--cfg-options', gone], 'gone'),
        (['mmscfs::x'], "no config file 'mmscfs::x': '"),
    ):
        refuses('browse_views', *words, '--out', out, match=expected)


@pytest.mark.parametrize('labeled', [True, False])
def test_tsne(pretrained, image_folder, tmp_path, labeled):
    other = image_folder / 'train' / 'other'
    other.mkdir()
    for path in sorted((image_folder / 'train/class').iterdir())[:4]:
        path.rename(other / path.name)
    out = tmp_path / 'plane.png'
    words = [KNN, '--pretrained', pretrained, '--out', out]
    words += ['--method', 'pca', '--layer', 'layer3', '--number', '12']
    words += knn_options(image_folder)
    words.append(f'test_dataloader.dataset.with_label={labeled}')
    assert run('vis_tsne', *words) == 0
    assert cv2.imread(str(out)).shape[0] > 700
    lines = out.with_suffix('.csv').read_text().splitlines()
    assert len(lines) == 13
    columns = np.array([line.split(',') for line in lines[1:]])
    names = [path.split('/')[-2] for path in columns[:, 0]]
    if labeled:
        assert columns[:, 2].tolist() == names
        assert {*columns[:, 1]} == {'0', '1'}
    else:
        assert {*columns[:, 1]} == {*columns[:, 2]} == {''}
    assert len(np.unique(columns[:, 3])) == 12


def test_tsne_refuses(pretrained, checkpoint, tmp_path, refuses):
    out = ['--out', tmp_path / 'plane.png']
    good = [KNN, '--pretrained', pretrained]
    other, scfs = tmp_path / 'other.pth', CONFIGS / 'scfs_r50.py'
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), other)
    for words, expected in (
        ([*good, *out, '--number', '2'], '--number: 2 must be a whole num'),
        ([KNN, '--pretrained', checkpoint, *out], 'does not fit'),
        ([KNN, '--pretrained', other, *out], "other.pth': "),
        ([scfs, '--pretrained', checkpoint, *out], 'has no test_dataloader'),
    ):
        refuses('vis_tsne', *words, match=expected)
    assert not list(tmp_path.glob('*.png'))


def test_detections_of_two_checkpoints(tmp_path, refuses, drawn):
    scenes = tmp_path / 'scenes'
    labels = scenes / 'annotations/instances_val.json'
    make_coco(scenes / 'val', labels, tuple('0123456789'))
    cfg = Config.fromfile(DETECTOR)
    model = MODELS.build(dict(cfg.model, _scope_='mmdet'))
    state = model.state_dict()
    paths = [tmp_path / 'one.pth', tmp_path / 'two.pth']
    for bias, path in zip((0.0, 3.0), paths, strict=True):
        # The second finds the class 7 everywhere.
        state['roi_head.bbox_head.fc_cls.bias'][7] = bias
        torch.save(dict(state_dict=state), path)
    out = tmp_path / 'detections.png'
    words = [DETECTOR, '--checkpoints', f'one={paths[0]}', f'two={paths[1]}']
    options = [f'val_dataloader.dataset.data_root={scenes}/']
    words += ['--out', out, '--cfg-options', *options]
    assert run('vis_detections', *words) == 0
    assert cv2.imread(str(out)).shape[1] > 900
    annotations = json.loads(labels.read_text())['annotations']
    assert len(drawn) == 2
    for number, (image, found) in enumerate(drawn, 1):
        own = [a for a in annotations if a['image_id'] == number]
        assert list(found) == ['annotated', 'one', 'two']
        boxes = [
            [x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in own)
        ]
        assert found['annotated'].boxes.tolist() == boxes
        assert found['annotated'].masks.shape == (2, *image.shape[:2])
        assert len(found['one'].labels) == 0  # all scores are low
        assert {*found['two'].labels} == {7}
        assert (found['two'].scores >= 0.3).all()

    torch.save(dict(state_dict=dict(weight=torch.ones(2))), paths[0])
    other = 'one.pth. is not a detector: it holds weight'
    for config, pairs, expected in (
        (DETECTOR, [paths[0]], 'give name=checkpoint'),
        (DETECTOR, [f'a={paths[0]}', f'a={paths[1]}'], 'every name once'),
        (DETECTOR, [f'annotated={paths[0]}'], 'none "annotated"'),
        (DETECTOR, [f'a={paths[0]}'], other),
        (KNN, [f'a={paths[0]}'], 'is not a config of a detector'),
    ):
        words = [config, '--checkpoints', *pairs, '--out', out]
        if config == DETECTOR:
            words += ['--cfg-options', *options]
        refuses('vis_detections', *words, match=expected)
