# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/benchmarks, and its textbook form as an oracle of the step."""

import copy
import importlib
import json

import cv2
import pytest
import torch
from commands import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch.testing import assert_close

from mmscfs.engine.hooks import representation_hook

RECIPE = ROOT / 'configs/scfs_r50.py'
LOADER = ['--images', '2', '--rounds', '1', '--local', '1']


@pytest.fixture
def load(monkeypatch):
    """Import a module of tools/benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools/benchmarks'))
    return importlib.import_module


@pytest.fixture
def pair(load, scfs_cfg):
    """Return a function that builds a model and its textbook form."""

    def build(dtype, search_views, **kwargs):
        scfs_cfg.update(search_views=search_views)
        model = MODELS.build(scfs_cfg)
        model.init_weights()
        model.to(dtype).train()
        with torch.no_grad():  # a teacher that differs
            for parameter in model.teacher.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            model.head.center.value.normal_(std=0.1)
            for center in model.head.search_centers:
                center.value.normal_(std=0.1)
        return model, load('textbook').TextbookSCFS(model, **kwargs).train()

    return build


@pytest.mark.parametrize(
    ('dtype', 'tolerance', 'search_views'),
    [(torch.float64, 1e-9, 'all'), (torch.float32, 1e-4, 'first')],
)
def test_ten_steps_stay_with_the_textbook(
    pair, dtype, tolerance, search_views
):
    """Losses, clipping, SGD, teacher and centers.

    Batch norm over few pixels would multiply fp32's rounding: the last
    layer's local maps have 2 x 2 of them.
    """
    settings = dict(lr=0.001, momentum=0.9, weight_decay=1e-4)
    model, plain = pair(
        dtype, search_views, max_norm=0.5, teacher_momentum=0.9, **settings
    )
    before = copy.deepcopy(model.state_dict())
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='PerParamClipOptimWrapper',
            constructor='DecayGroupConstructor',
            optimizer=dict(type='SGD', **settings),
            clip_grad=dict(max_norm=0.5),
            precision='fp32',
        ),
    )
    views = [
        torch.randn(8, 3, size, size, dtype=torch.float64).to(dtype)
        for size in (96, 96, 64, 64)
    ]
    for _ in range(10):
        loss, _ = model.parse_losses(model.loss(views))
        expected = plain.loss(views)
        assert_close(loss, expected, rtol=tolerance, atol=0)
        wrapper.update_params(loss)
        model.after_step(0.9)
        expected.backward()
        plain.update()
    for ours, theirs in (
        (model.neck, plain.student.projector),
        (model.search_neck, plain.student.search_projectors),
        (model.teacher.neck, plain.teacher.projector),
        (model.teacher.backbone, plain.teacher.backbone),
        (model.backbone, plain.student.backbone),
    ):
        ours, theirs = (
            torch.cat([p.flatten() for p in network.parameters()])
            for network in (ours, theirs)
        )
        assert (ours - theirs).norm() <= tolerance * theirs.norm()
    centers = [model.head.center, *model.head.search_centers]
    for center, expected in zip(centers, plain.centers, strict=True):
        assert_close(center.value, expected, rtol=tolerance, atol=tolerance)
    moved = model.state_dict()['neck.prototypes.weight']
    assert (moved - before['neck.prototypes.weight']).norm() > 1e-3


@pytest.fixture
def tiny_config(scfs_cfg, tmp_path):
    """A recipe with a tiny network, and options for tiny views."""
    cfg = Config.fromfile(RECIPE)
    cfg.model = scfs_cfg
    cfg.train_dataloader.dataset.pipeline[1].global_size = 64
    path = tmp_path / 'tiny.py'
    cfg.dump(path)
    return [
        *('--config', str(path), '--batch', '2', '--rounds', '1'),
        *('--global-size', '64', '--local-size', '32', '--num-local', '2'),
        *('--precision', 'fp32'),
    ]


def test_benchmark_prints_a_table(load, tiny_config, capsys):
    assert load('step').main(tiny_config) == 0
    printed = capsys.readouterr().out
    for name in ('textbook form', 'mmscfs', 'bare backbone'):
        assert name in printed
    difference = printed.split('totals differ by ')[1].split()[0]
    assert float(difference) < 1e-5


def test_benchmark_as_json(load, tiny_config, capsys):
    """In fp16, with a loss scale."""
    options = ['--precision', 'fp16', '--json', '--no-textbook']
    assert load('step').main([*tiny_config, *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {'mmscfs', 'bare backbone'}
    assert result['mmscfs']['total'] > 0
    assert min(result['mmscfs']['backward'] + result['mmscfs']['update']) > 0
    assert result['mmscfs']['memory'] > 0


def test_figures_are_timed_beside_the_step(load, tiny_config, capsys):
    least = representation_hook.LEAST_IMAGES
    assert least == load('step').LEAST_IMAGES == 8
    options = ['--no-textbook', '--figures', '8']
    assert load('step').main([*tiny_config, *options]) == 0
    line = ' '.join(capsys.readouterr().out.split()).split('figures of 8 ')[1]
    total, parts = line.split('as long as ')[1].split(' steps: ')
    shares = dict(part.rsplit(' ', 1) for part in parts.split(', '))
    names = ['views and features', 'RankMe', 'alpha-ReQ', 'LiDAR', 'DSE']
    assert [*shares] == names
    assert sum(map(float, shares.values())) == pytest.approx(
        float(total), abs=0.03
    )


def test_profile_finds_every_part(load, tiny_config, capsys):
    step = load('step')
    args = step.parse_args([*tiny_config, '--no-textbook'])
    steps, model = step.build_steps(args)
    load('step_profile').profile(steps['mmscfs'], model)
    rows = {
        cells[0].strip(): [float(c.strip(' %')) for c in cells[1:4]]
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.strip('│ ').split('│')) == 4 and '%' in line
    }
    assert sum(share for share, *_ in rows.values()) == pytest.approx(100, 1)
    trained = ('backbone', 'DINO projector', 'search projectors')
    for part in (*trained, 'prototypes and losses'):
        assert min(rows[part][1:]) > 0, part
    for part in trained:
        forward, backward = rows[f"teacher's {part}"][1:]
        assert forward > 0
        assert backward == 0
    # Gradients are attributed: next to nothing is left between the parts.
    assert rows.get('between the parts', [0])[0] < 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--batch', '1'], '1 must be a whole number >= 2'),
        (['--figures', '7'], '--figures 7: the figures need 8 images or more'),
        (['--num-local', '0'], 'needs local views'),
        (['--config', 'no.py'], "no config file 'no.py'"),
    ],
)
def test_bad_options_are_refused(load, options, message, capsys):
    with pytest.raises(SystemExit) as error:
        load('step').parse_args(options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_textbook_refuses_dino(load, dino_cfg, tiny_config, tmp_path, capsys):
    cfg = Config.fromfile(RECIPE)
    cfg.model = dino_cfg
    cfg.dump(tmp_path / 'tiny.py')
    assert load('step').main(tiny_config) == 2
    assert 'add --no-textbook' in capsys.readouterr().err


@pytest.fixture
def loader(load):
    threads = cv2.getNumThreads()
    yield load('loader')
    cv2.setNumThreads(threads)


def test_all_pipelines_are_measured(loader, capsys):
    assert loader.main([*LOADER, '--size', '240x180']) == 0
    printed = capsys.readouterr().out
    options = ('colors on device', "OpenCV's filters")
    for row in ('ours', *options, 'Pillow and torchvision'):
        assert row in printed


def test_your_own_images_are_loaded(loader, image_folder, tmp_path, capsys):
    assert loader.main([*LOADER, '--data', str(image_folder)]) == 0
    assert '2 images of' in capsys.readouterr().out
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert loader.main([*LOADER, '--data', str(empty)]) == 2
    assert f'no images in --data {empty}' in capsys.readouterr().err
