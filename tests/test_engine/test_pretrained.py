# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from toy_runs import in_processes

from mmscfs.checkpoint import read_checkpoint
from mmscfs.checkpoint.pretrained import KEPT
from mmscfs.engine import start_from
from mmscfs.engine.hooks import PretrainedGuardHook
from mmscfs.engine.meeting import on_first_process
from mmscfs.engine.pretrained import pretrained_places, pretraining_input
from mmscfs.results import read_origin

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.fixture
def checkpoint(scfs_cfg, tmp_path):
    """A raw SCFS checkpoint whose teacher and student differ."""
    model = MODELS.build(scfs_cfg)
    model.init_weights()
    for parameter in model.teacher.parameters():
        parameter.data.add_(0.25)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


@pytest.fixture
def cfg():
    """What start_from needs of a detector's config."""
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='FasterRCNN',
                data_preprocessor=dict(
                    type='DetDataPreprocessor', bgr_to_rgb=True, **RGB
                ),
                backbone=dict(init_cfg=dict(type='Normal'), **backbone),
                rpn_head=dict(type='RPNHead', num_classes=1),
            ),
        )
    )


def build_backbone(cfg):
    init_default_scope('mmdet')
    backbone = DETECTORS.build(cfg.model.backbone)
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize(
    ('network', 'prefix'),
    [
        (None, 'teacher.backbone.'),
        ('teacher', 'teacher.backbone.'),
        ('student', 'backbone.'),
    ],
)
def test_backbone_starts_from_the_network(cfg, checkpoint, network, prefix):
    start_from(cfg, checkpoint, network)
    source = torch.load(checkpoint, weights_only=True)['state_dict']
    own = build_backbone(cfg).state_dict()
    assert len(own) > 100
    for key, value in own.items():
        assert torch.equal(value, source[prefix + key]), key


def start_part(cfg, checkpoint):
    """Start as one of two processes, of which the second lacks the file."""
    path = 'missing.pth' if dist.get_rank() else checkpoint
    wrong = copy.deepcopy(cfg)
    wrong.model.backbone.depth = 34
    with pytest.raises(ValueError, match=r'for model\.backbone: ') as error:
        start_from(wrong, path)
    with pytest.raises((KeyError, ValueError), match='absent'):
        on_first_process({}.__getitem__, 'absent')  # nobody waits for it
    start_from(cfg, path)
    return dict(state=build_backbone(cfg).state_dict(), error=str(error.value))


def test_one_process_reads_and_checks_for_all(cfg, checkpoint, tmp_path):
    first, second = in_processes(start_part, 2, tmp_path, cfg, checkpoint)
    assert first['error'] == second['error']
    source = torch.load(checkpoint, weights_only=True)['state_dict']
    for found in (first['state'], second['state']):
        assert len(found) > 100
        for key, value in found.items():
            assert torch.equal(value, source[f'teacher.backbone.{key}']), key


def test_places_are_found_at_any_depth():
    stage = dict(type='ResLayer')
    model = dict(
        detector=dict(
            backbone=dict(type='ResNet'),
            roi_head=dict(shared_head=stage, bbox_head=[dict(type='B')]),
        ),
        neck=None,
    )
    assert [path for path, _ in pretrained_places(model)] == [
        'model.detector.backbone',
        'model.detector.roi_head.shared_head',
    ]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'backbone.depth': 34}, r'for model\.backbone: .*missing'),
        ({'backbone': None}, 'FasterRCNN has no backbone'),
        (
            {'data_preprocessor.bgr_to_rgb': False},
            'data_preprocessor has BGR input',
        ),
        (
            {'data_preprocessor.mean': [103.53, 116.28, 123.675]},
            r'has RGB input of mean=\[103.53',
        ),
        ({'data_preprocessor.std': [1.0, 1.0, 1.0]}, r'std=\[1.0, 1.0'),
        (
            {'data_preprocessor.mean': None, 'data_preprocessor.std': None},
            r'has RGB input of mean=\[0.0, 0.0, 0.0\], std=\[1.0',
        ),
        ({'data_preprocessor': None}, r'mean=\[0.0, 0.0, 0.0\]'),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run(
    cfg, checkpoint, settings, message
):
    cfg.merge_from_dict({f'model.{k}': v for k, v in settings.items()})
    with pytest.raises(ValueError, match=message):
        start_from(cfg, checkpoint)


def test_images_may_be_normalized_in_a_branch(cfg, checkpoint):
    """As in semi-supervised detectors."""
    cfg.model.data_preprocessor = dict(
        type='MultiBranchDataPreprocessor',
        data_preprocessor=cfg.model.data_preprocessor,
    )
    start_from(cfg, checkpoint)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (RGB, None),
        (dict(RGB, to_rgb=False), 'Normalize of the pipeline has BGR input'),
        (dict(RGB, std=[1, 1, 1]), 'Normalize of the pipeline has RGB input'),
    ],
)
def test_images_may_be_normalized_in_the_pipeline(
    cfg, checkpoint, settings, message
):
    steps = [dict(type='mmcv.Normalize', **settings)]
    cfg.train_dataloader = dict(dataset=dict(pipeline=steps))
    with pytest.raises(ValueError, match='normalized twice'):
        start_from(cfg, checkpoint)
    cfg.model.data_preprocessor = None
    if message is None:
        start_from(cfg, checkpoint)
        return
    with pytest.raises(ValueError, match=message):
        start_from(cfg, checkpoint)


@pytest.mark.parametrize(
    ('own', 'given', 'fits'),
    [
        ([7.0], [7], True),
        ([7.0], [7] * 5, True),  # one number is for all channels
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1, 2, 3, 4, 5], True),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1, 2, 3, 4, 6], False),
        ([7.0] * 4, [7] * 5, False),
    ],
)
def test_input_of_many_channels(cfg, checkpoint, own, given, fits):
    content = torch.load(checkpoint, weights_only=True)
    settings = dict(mean=own, std=own, channel_order='BGR')
    torch.save(
        dict(content, meta=dict(data_preprocessor=settings)), checkpoint
    )
    cfg.model.data_preprocessor.update(mean=given, std=given, bgr_to_rgb=False)
    if fits:
        start_from(cfg, checkpoint)
    else:
        with pytest.raises(ValueError, match='trained on BGR input'):
            start_from(cfg, checkpoint)


@pytest.mark.parametrize(
    'damage',
    [
        dict(mean=[math.nan, 0, 0]),
        dict(std=[1, 0, 1]),
        dict(std=[1, 1]),
        dict(channel_order='XYZ'),
    ],
)
def test_an_input_that_cannot_be(damage):
    settings = dict(RGB, channel_order='RGB')
    meta = dict(data_preprocessor=settings)
    assert pretraining_input(dict(meta=meta)) == settings
    settings.update(damage)
    with pytest.raises(ValueError, match=r'valid mean, std .*export it again'):
        pretraining_input(dict(meta=meta))


@pytest.mark.parametrize(
    ('given', 'own', 'same'),
    [
        # A tuple in a config, and a list where it is read again.
        ((0, 4095), (0, 4095), True),
        ([0, 4095], (0, 4095), True),
        (None, None, True),
        (None, (0, 4095), False),
        ('percentiles', (0, 4095), False),
        (
            dict(per_band=True, percentiles=[1, 99]),
            dict(percentiles=(1, 99), per_band=True),
            True,
        ),
    ],
)
def test_values_of_the_pretraining(cfg, checkpoint, given, own, same, log):
    content = torch.load(checkpoint, weights_only=True)
    text = (
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImage',"
        f' value_range={own})]))'
    )
    torch.save(dict(content, meta=dict(cfg=text)), checkpoint)
    step = dict(type='mmpretrain.LoadImage', value_range=given)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[step]))
    start_from(cfg, checkpoint)
    told = [m for m in log.messages if 'pre-training had [0, 4095]' in m]
    assert len(told) == (not same)
    assert all(f'value_range={given}' in message for message in told)


def test_load_from_would_overwrite_it(cfg, checkpoint):
    cfg.load_from = 'detector.pth'
    with pytest.raises(ValueError, match=r"load_from='detector.pth'"):
        start_from(cfg, checkpoint)
    cfg.resume = True  # there, it names what to resume
    start_from(cfg, checkpoint)


@pytest.mark.parametrize('where', ['cfg', 'pth', 'safetensors'])
def test_input_of_the_pretraining_counts(cfg, checkpoint, where, tmp_path):
    """A backbone pre-trained on other statistics wants them again."""
    content = torch.load(checkpoint, weights_only=True)
    own = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    settings = dict(own, channel_order='BGR')
    path = tmp_path / f'own.{"pth" if where == "cfg" else where}'
    meta = dict(data_preprocessor=settings)
    if where == 'cfg':
        meta = dict(
            cfg='data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], '
            'to_rgb=False)'
        )
    if where == 'safetensors':
        state = {
            key.removeprefix('backbone.'): value.contiguous()
            for key, value in content['state_dict'].items()
            if key.startswith('backbone.')
        }
        save_file(state, path, {'data_preprocessor': json.dumps(settings)})
    else:
        torch.save(dict(content, meta=meta), path)
    with pytest.raises(ValueError, match=r'trained on BGR input of mean=\[1'):
        start_from(cfg, str(path))
    cfg.model.data_preprocessor.update(own, bgr_to_rgb=False)
    start_from(cfg, str(path))


@pytest.mark.parametrize('kind', [torch.float32, torch.float64])
def test_guard_notices_weights_that_are_not_the_checkpoints(
    cfg, checkpoint, kind
):
    content = torch.load(checkpoint, weights_only=True)
    for key, value in content['state_dict'].items():
        if value.is_floating_point():  # and no float32, if it is a double
            content['state_dict'][key] = value.to(kind) * (1 + 1e-9)
    torch.save(content, checkpoint)
    start_from(cfg, checkpoint)
    model = torch.nn.Module()
    model.backbone = build_backbone(cfg)
    runner = SimpleNamespace(model=model, iter=0)
    settings = dict(cfg.custom_hooks[0])
    assert settings.pop('type') == 'mmpretrain.PretrainedGuardHook'
    hook = PretrainedGuardHook(**settings)
    hook.before_train(runner)
    assert (checkpoint, None) not in KEPT  # the memory is free
    model.backbone.layer2[0].bn1.weight.data.zero_()
    with pytest.raises(
        RuntimeError, match=r'model\.backbone .*layer2\.0\.bn1'
    ):
        hook.before_train(runner)
    runner.iter = 3  # resumed
    hook.before_train(runner)


def test_the_file_is_read_once(cfg, checkpoint, monkeypatch):
    """For the trial, two modules' weights, their check and the result."""
    read = []

    def counted(path):
        read.append(path)
        return read_checkpoint(path)

    for module in (
        'checkpoint.pretrained',
        'engine.pretrained',
        'results.origin',
    ):
        monkeypatch.setattr(f'mmscfs.{module}.read_checkpoint', counted)
    start_from(cfg, checkpoint, 'student')
    for part in (cfg.model, cfg.model):
        model = torch.nn.Module()
        model.backbone = build_backbone(Config(dict(model=part)))
    settings = {k: v for k, v in cfg.custom_hooks[0].items() if k != 'type'}
    hook = PretrainedGuardHook(**settings)
    hook.before_test(SimpleNamespace(model=model))
    assert read_origin(checkpoint).network == 'teacher'
    assert read == [checkpoint]
    hook.before_test(SimpleNamespace(model=model))  # as of a dumped config
    assert read == [checkpoint] * 2


@pytest.mark.parametrize('stages', [(0, 1, 2, 3), (1, 2, 3)])
def test_an_fpn_of_other_widths_is_refused(cfg, checkpoint, stages):
    cfg.model.backbone.out_indices = stages
    # A ResNet-18 of width 8: its stages have 8, 16, 32 and 64 channels.
    channels = [8 * 2**stage for stage in stages]
    cfg.model.neck = dict(type='FPN', in_channels=[256] * len(stages))
    with pytest.raises(ValueError, match='model.neck.in_channels=') as error:
        start_from(cfg, checkpoint)
    assert str(error.value).endswith(f'set model.neck.in_channels={channels}')
    cfg.model.neck.in_channels = channels
    start_from(cfg, checkpoint)
