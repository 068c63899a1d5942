# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The operators over torchvision's, and mmdet on them."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmcv.ops
import mmdet
import pytest
import torch
from commands import ROOT
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmscfs import ops
from mmscfs.ops import TorchvisionOperators

EXTENSION = TorchvisionOperators()
CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'


@pytest.fixture
def stand_in(monkeypatch):
    """torchvision's operators, also where mmcv is compiled."""
    monkeypatch.setitem(sys.modules, 'mmcv._ext', EXTENSION)


# Non-maximum suppression


def plain_nms(boxes, scores, threshold, offset):
    """Indices of the kept boxes: of equal scores the first comes first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(overlap(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def overlap(a, b, offset):
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(width, 0) * max(height, 0)
    areas = [
        (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
        for box in (a, b)
    ]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize(('offset', 'threshold'), [(0, 0.5), (1, 0.7)])
def test_nms_is_that_of_plain_loops(offset, threshold):
    corners = torch.rand(200, 2, dtype=torch.float64) * 40
    sizes = torch.rand(200, 2, dtype=torch.float64) * 30 + 0.5
    boxes = torch.cat([corners, corners + sizes], dim=1)
    scores = torch.randint(8, (200,)).double() / 8  # many are equal
    kept = EXTENSION.nms(boxes, scores, threshold, offset)
    assert kept.tolist() == plain_nms(
        boxes.tolist(), scores.tolist(), threshold, offset
    )


# RoIAlign


def align(maps, rois, grad=None, ratio=1, aligned=True):
    """Call the extension as mmcv does; return the pooled maps or gradient.

    Bins of 3 x 5, on maps at half the scale of the boxes.
    """
    empty = maps.new_zeros(0)
    settings = (3, 5, 0.5, ratio, 1, aligned)
    if grad is None:
        found = maps.new_zeros(len(rois), maps.shape[1], 3, 5)
        EXTENSION.roi_align_forward(maps, rois, found, empty, empty, *settings)
    else:
        found = torch.zeros_like(maps)
        EXTENSION.roi_align_backward(
            grad, rois, empty, empty, found, *settings
        )
    return found


@pytest.fixture(params=[False, True], ids=['fast', 'deterministic'])
def _algorithms(request):
    """torch's setting, for which the backward pass has two ways."""
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [1, 2])
def test_roi_align_of_bins_as_large_as_pixels(aligned, ratio):
    """Rows 3 to 5 and columns 4 to 8 of the second image.

    One sample in the center of each bin is the pixel. Two by two lie a
    quarter off it, where a neighbor has a quarter of the weight: 1/8, 3/4
    and 1/8 in each direction.
    """
    maps = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    roi = torch.tensor([8.0, 6, 18, 12]) - (0 if aligned else 1)
    rois = torch.cat([torch.ones(1), roi])[None].double()
    found = align(maps, rois, ratio=ratio, aligned=aligned)
    expected = maps[1, :, 3:6, 4:9]
    if ratio == 2:
        one = torch.tensor([0.125, 0.75, 0.125], dtype=torch.float64)
        kernel = (one[:, None] * one)[None, None]
        around = maps[1, :, None, 2:7, 3:10]
        expected = nn.functional.conv2d(around, kernel)[:, 0]
    torch.testing.assert_close(found[0], expected)


@pytest.mark.usefixtures('_algorithms')
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('boxes', [7, 0])
def test_roi_align_backward_is_the_adjoint_of_forward(ratio, boxes):
    maps = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    corners = torch.rand(boxes, 2) * 40 - 8  # partly outside
    rois = torch.cat([corners, corners + 20 * torch.rand(boxes, 2)], dim=1)
    images = torch.arange(boxes)[:, None] % 2
    rois = torch.cat([images, rois], dim=1).double()
    pooled = align(maps, rois, ratio=ratio)
    grad = torch.randn_like(pooled)
    back = align(maps, rois, grad, ratio)
    torch.testing.assert_close((pooled * grad).sum(), (maps * back).sum())
    assert bool(back.any()) == bool(boxes)


def test_roi_align_in_half_precision():
    """mmdet hands over boxes of fp32, under autocast beside maps of fp16."""
    maps = torch.randn(2, 3, 12, 16).half()
    rois = torch.tensor([[0, 2.0, 3.0, 21.0, 17.5], [1, 0, 0, 31, 23]])
    for grad in (None, torch.randn(2, 3, 3, 5).half()):
        found = align(maps, rois, grad)
        assert found.dtype == torch.float16
        wide = None if grad is None else grad.double()
        expected = align(maps.double(), rois.double(), wide)
        torch.testing.assert_close(
            found.double(), expected, rtol=2e-3, atol=2e-3
        )


# Sigmoid focal loss


def plain_focal_loss(logits, target, weight, gamma, alpha):
    """The loss of each logit, and its derivative, by the formula."""
    logits = logits.clone().requires_grad_()
    # Background, the last label, is of no class.
    labels = nn.functional.one_hot(target, logits.shape[1] + 1)
    is_class = labels[:, :-1].bool()
    right = torch.where(is_class, logits.sigmoid(), 1 - logits.sigmoid())
    share = torch.where(is_class, alpha, 1 - alpha)
    loss = -share * (1 - right) ** gamma * right.log()
    if weight:
        loss = loss * logits.new_tensor([*weight, 1.0])[target][:, None]
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


def focal(direction, logits, target, weight=(), gamma=2.0):
    """Call the extension as mmcv does, alpha 0.25."""
    found = torch.full_like(logits, torch.nan)
    call = getattr(EXTENSION, f'sigmoid_focal_loss_{direction}')
    weights = logits.new_tensor(weight)
    call(logits, target, weights, found, gamma=gamma, alpha=0.25)
    return found


@pytest.mark.parametrize(
    ('gamma', 'weight'), [(2.0, []), (1.5, [1.0, 0.5, 2.0, 0.0]), (0.0, [])]
)
def test_focal_loss_is_that_of_the_formula(gamma, weight):
    logits = torch.randn(6, 4, dtype=torch.float64) * 3
    target = torch.tensor([0, 1, 2, 3, 0, 4])
    wanted = plain_focal_loss(logits, target, weight, gamma, 0.25)
    for direction, expected in zip(
        ('forward', 'backward'), wanted, strict=True
    ):
        found = focal(direction, logits, target, weight, gamma)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_focal_gradient_of_certain_logits_is_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    found = focal('backward', logits, torch.tensor([0, 0]), gamma=0.5)
    # Right for sure: no gradient. Wrong for sure: that of the bare logit.
    assert found.tolist() == [[0.0, 0.0], [-0.25, 0.75]]


# In place of mmcv's


@pytest.mark.parametrize('found', [None, 'a compiled extension'])
def test_a_compiled_extension_wins(monkeypatch, found):
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    monkeypatch.setattr(ops, 'find_spec', lambda name: found)
    monkeypatch.setattr('mmcv._ext', None, raising=False)
    ops.install_operators()
    assert ops.is_compiled() == (found is not None)
    assert ('torchvision' in ops.describe_operators()) == (found is None)
    # Where mmcv is compiled, nothing is refused.
    theirs = ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', theirs)
    ops.install_operators()
    assert sys.modules['mmcv._ext'] is theirs
    ops.check_operators(mmcv.ops.RoIAlign(7, pool_mode='max'))


# What is missing


def test_a_missing_operator_is_named(stand_in, monkeypatch):
    from mmcv.ops import ModulatedDeformConv2dPack

    file = sys.modules['mmcv.ops.modulated_deform_conv']
    monkeypatch.setattr(file, 'ext_module', EXTENSION)
    model = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    with pytest.raises(NotImplementedError) as error:
        model(torch.zeros(1, 3, 8, 8))
    text = str(error.value)
    assert 'operator modulated_deform_conv_forward is not installed' in text
    assert 'MMCV_WITH_OPS=1 pip install ' in text


def with_settings(**settings):
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.test_cfg = Config(settings)._cfg_dict
    return model


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (mmcv.ops.RoIAlign(7), None),
        (mmcv.ops.SigmoidFocalLoss(2.0, 0.25), None),
        (with_settings(rcnn=[dict(nms=dict(type='nms'))]), None),
        (
            with_settings(rcnn=[dict(nms=dict(type='soft_nms'))]),
            r'roi_head \(soft_nms\)\.',
        ),
        (
            with_settings(sampler=dict(type='ScoreHLRSampler')),
            r'roi_head \(nms_match\)\.',
        ),
        (
            mmcv.ops.RoIAlign(7, pool_mode='max'),
            r"the model \(RoIAlign with pool_mode='max'",
        ),
    ],
)
def test_a_model_is_refused_before_the_first_validation(
    stand_in, model, message
):
    if message is None:
        ops.check_operators(model)
    else:
        with pytest.raises(ValueError, match=message):
            ops.check_operators(model)


# Our commands


def test_commands_log_the_operators_and_refuse_the_model(
    stand_in, monkeypatch
):
    from mmscfs.engine.screen import build_runner

    lines = []
    runner = SimpleNamespace(
        model=mmcv.ops.RoIAlign(7, pool_mode='max'),
        logger=SimpleNamespace(info=lines.append),
    )
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: runner)
    with pytest.raises(ValueError, match='^the model needs compiled'):
        build_runner(Config())
    assert lines == [
        "Operators of mmcv: torchvision's NMS, RoIAlign and sigmoid focal loss"
    ]


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_spawned_workers_have_the_operators(name):
    """They unpickle mmdet's data set before anything else is imported."""
    text = (ROOT / 'tools' / name).read_text()
    end = text.partition("\nelif __name__ == '__mp_m")[2]
    assert re.search(r'^    (import|from) mmscfs', end, re.M)


# mmdet's own configs


def build(name):
    """Return a detector of mmdet's own config; nothing is downloaded."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    cfg.model.pop('init_cfg', None)
    return MODELS.build(cfg.model)


def test_a_detector_of_mmdet_trains_and_detects(stand_in):
    """tests/test_detection_configs.py has Mask R-CNN and Faster R-CNN."""
    for name in (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        'atss/atss_r50_fpn_1x_coco',
        'detr/detr_r50_8xb2-150e_coco',
    ):  # which have the same operators, or none
        ops.check_operators(build(name))
    model = build('retinanet/retinanet_r50_fpn_1x_coco')
    ops.check_operators(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    batch = demo_mm_inputs(2, [(3, 64, 96)] * 2, num_items=[1, 1])
    data = model.data_preprocessor(batch, training=True)
    losses, _ = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    optimizer.step()
    assert losses.isfinite()
    grads = [p.grad for p in model.backbone.layer4.parameters()]
    assert any(grad is not None and grad.any() for grad in grads)
    model.eval()
    with torch.no_grad():
        found = model.test_step(batch)
    assert len(found) == 2
    assert found[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize(
    ('name', 'part'),
    [
        (
            'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
            'encoder.layers.0.self_attn (MultiScaleDeformableAttention) and',
        ),
        # Calls its operator as a function.
        ('tood/tood_r50_fpn_1x_coco', 'bbox_head (DeformConv2dFunction) and'),
    ],
)
def test_deformable_detectors_are_refused_by_name(name, part, stand_in):
    with pytest.raises(ValueError, match='compiled operators') as error:
        ops.check_operators(build(name))
    assert part in str(error.value)
    assert 'MMCV_WITH_OPS=1 pip install ' in str(error.value)
