# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The operators over torchvision's, and mmdet on them."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmcv.ops
import mmdet
import pytest
import torch
from commands import ROOT, run
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from mmscfs import ops
from mmscfs.ops import TorchvisionOperators

EXTENSION = TorchvisionOperators()
CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HALF = (torch.float16, torch.bfloat16)


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


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7])
def test_nms_is_that_of_plain_loops(offset, threshold):
    corners = torch.rand(200, 2, dtype=torch.float64) * 40
    sizes = torch.rand(200, 2, dtype=torch.float64) * 30 + 0.5
    boxes = torch.cat([corners, corners + sizes], dim=1)
    scores = torch.randint(8, (200,)).double() / 8  # many are equal
    kept = EXTENSION.nms(boxes, scores, threshold, offset)
    assert kept.tolist() == plain_nms(
        boxes.tolist(), scores.tolist(), threshold, offset
    )
    assert 0 < len(kept) < 200


def test_nms_offset_makes_neighbors_overlap():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 9, 9, 18]])
    scores = torch.tensor([0.1, 0.2])
    # As pixels, row 9 is in both: 10 of 190.
    assert EXTENSION.nms(boxes, scores, 0.05, 1).tolist() == [1]
    assert EXTENSION.nms(boxes, scores, 0.05, 0).tolist() == [1, 0]


@pytest.mark.parametrize('dtype', [*HALF, torch.float32])
def test_nms_of_every_precision(dtype):
    boxes = torch.tensor([[0, 0, 8, 8], [1, 0, 8, 8], [9, 9, 12, 12]])
    scores = torch.tensor([0.25, 0.5, 0.125])
    for count, expected in ((3, [1, 2]), (0, [])):
        kept = EXTENSION.nms(
            boxes[:count].to(dtype), scores[:count].to(dtype), 0.5, 0
        )
        assert kept.tolist() == expected
        assert kept.dtype == torch.long


# RoIAlign


def align(maps, rois, grad=None, ratio=1, aligned=True, pool_mode=1):
    """Call the extension as mmcv does; return the pooled maps or gradient.

    Bins of 3 x 5, on maps at half the scale of the boxes.
    """
    empty = maps.new_zeros(0)
    settings = dict(
        aligned_height=3,
        aligned_width=5,
        spatial_scale=0.5,
        sampling_ratio=ratio,
        pool_mode=pool_mode,
        aligned=aligned,
    )
    if grad is None:
        found = maps.new_zeros(len(rois), maps.shape[1], 3, 5)
        call = EXTENSION.roi_align_forward
        call(maps, rois, found, empty, empty, **settings)
    else:
        found = torch.zeros_like(maps)
        call = EXTENSION.roi_align_backward
        call(grad, rois, empty, empty, found, **settings)
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


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_roi_align_in_half_precision(dtype, tolerance):
    """mmdet hands over boxes of fp32, under autocast beside maps of fp16."""
    maps = torch.randn(2, 3, 12, 16).to(dtype)
    rois = torch.tensor([[0, 2.0, 3.0, 21.0, 17.5], [1, 0, 0, 31, 23]])
    grad = torch.randn(2, 3, 3, 5).to(dtype)
    for gradient in (None, grad):
        found = align(maps, rois, gradient)
        assert found.dtype == dtype
        gradient = gradient if gradient is None else gradient.double()
        expected = align(maps.double(), rois.double(), gradient)
        torch.testing.assert_close(
            found.double(), expected, rtol=tolerance, atol=tolerance
        )


def test_roi_align_by_maximum_is_refused():
    maps, rois = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        align(maps, rois, pool_mode=0)


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


@pytest.mark.parametrize('gamma', [2.0, 1.5, 0.5, 0.0])
@pytest.mark.parametrize('weight', [[], [1.0, 0.5, 2.0, 0.0]])
def test_focal_loss_is_that_of_the_formula(gamma, weight):
    logits = torch.randn(6, 4, dtype=torch.float64) * 3
    target = torch.tensor([0, 1, 2, 3, 0, 4])
    expected = plain_focal_loss(logits, target, weight, gamma, 0.25)
    for call, wanted in zip(
        (
            EXTENSION.sigmoid_focal_loss_forward,
            EXTENSION.sigmoid_focal_loss_backward,
        ),
        expected,
        strict=True,
    ):
        found = torch.zeros_like(logits)
        weights = logits.new_tensor(weight)
        call(logits, target, weights, found, gamma=gamma, alpha=0.25)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize('gamma', [0.5, 2.0])
def test_focal_gradient_of_certain_logits_is_finite(gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    found = torch.full_like(logits, torch.nan)
    EXTENSION.sigmoid_focal_loss_backward(
        logits,
        torch.tensor([0, 0]),
        logits.new_zeros(0),
        found,
        gamma=gamma,
        alpha=0.25,
    )
    # Right for sure: no gradient. Wrong for sure: that of the bare logit.
    assert found.tolist() == [[0.0, 0.0], [-0.25, 0.75]]


@pytest.mark.parametrize('dtype', HALF)
def test_focal_loss_in_half_precision(dtype):
    logits = (torch.randn(50, 4) * 4).to(dtype)
    target = torch.randint(5, (50,))
    found, expected = torch.zeros_like(logits), torch.zeros(50, 4).double()
    for inputs, to in ((logits, found), (logits.double(), expected)):
        EXTENSION.sigmoid_focal_loss_forward(
            inputs, target, inputs.new_zeros(0), to, gamma=2.0, alpha=0.25
        )
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=1e-6)


# Through mmcv, and in place of it


def test_mmcv_calls_them(monkeypatch):
    from mmcv.ops import nms, roi_align, sigmoid_focal_loss

    for file in ('focal_loss', 'nms', 'roi_align'):
        module = sys.modules[f'mmcv.ops.{file}']
        monkeypatch.setattr(module, 'ext_module', EXTENSION)

    maps = torch.randn(2, 3, 12, 16, dtype=torch.float64).requires_grad_()
    rois = torch.tensor([[1, 2.0, 3, 21, 17.5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda maps: roi_align(maps, rois, (2, 2), 0.5, 2, 'avg', True), maps
    )
    logits = torch.randn(5, 3, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 1])
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'mean'),
        logits,
    )
    boxes = torch.tensor([[0.0, 0, 8, 8], [1, 0, 8, 8], [9, 9, 12, 12]])
    dets, kept = nms(boxes, torch.tensor([0.2, 0.5, 0.1]), 0.5, max_num=1)
    assert kept.tolist() == [1]
    assert dets[0, 4] == 0.5


@pytest.mark.parametrize('found', [None, 'a compiled extension'])
def test_a_compiled_extension_wins(monkeypatch, found):
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    monkeypatch.setattr(ops, 'find_spec', lambda name: found)
    monkeypatch.setattr('mmcv._ext', None, raising=False)
    ops.install_operators()
    assert ops.is_compiled() == (found is not None)
    text = ops.describe_operators()
    assert text.endswith('compiled') == (found is not None)
    assert ('torchvision' in text) == (found is None)


def test_an_extension_that_is_loaded_stays(monkeypatch):
    theirs = ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', theirs)
    monkeypatch.setattr(ops, 'find_spec', lambda name: None)
    ops.install_operators()
    assert sys.modules['mmcv._ext'] is theirs


# What is missing


def test_a_missing_operator_is_named_with_its_part(stand_in, monkeypatch):
    from mmcv.ops import ModulatedDeformConv2dPack

    file = sys.modules['mmcv.ops.modulated_deform_conv']
    monkeypatch.setattr(file, 'ext_module', EXTENSION)
    layer = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    model = nn.Sequential(nn.Identity(), nn.Sequential(layer))
    with pytest.raises(NotImplementedError) as error:
        model(torch.zeros(1, 3, 8, 8))
    text = str(error.value)
    assert 'operator modulated_deform_conv_forward, which 1.0 (' in text
    assert '(ModulatedDeformConv2dPack) calls, is not installed' in text
    assert 'MMCV_WITH_OPS=1 pip install ' in text


def test_a_part_of_mmcv_that_needs_none_is_no_obstacle(stand_in):
    from mmcv.ops import RoIAlign, SigmoidFocalLoss, SimpleRoIAlign

    model = nn.Sequential(
        RoIAlign(7), SigmoidFocalLoss(2.0, 0.25), SimpleRoIAlign(7, 1.0)
    )
    ops.check_operators(model)


def test_other_nms_is_refused_before_the_first_validation(stand_in):
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.test_cfg = Config(
        dict(rcnn=[dict(nms=dict(type='soft_nms', iou_threshold=0.5))])
    )._cfg_dict
    with pytest.raises(ValueError, match=r'roi_head \(soft_nms\)\.'):
        ops.check_operators(model)
    settings = model.roi_head.test_cfg.rcnn[0]
    for plain in ('nms', mmcv.ops.nms):
        settings.nms.type = plain
        ops.check_operators(model)
    model.train_cfg = dict(sampler=dict(type='ScoreHLRSampler'))
    with pytest.raises(ValueError, match=r'the model \(nms_match\)\.'):
        ops.check_operators(model)
    model = nn.Sequential(mmcv.ops.RoIAlign(7, pool_mode='max'))
    with pytest.raises(ValueError, match=r"0 \(RoIAlign with pool_mode='max'"):
        ops.check_operators(model)


def test_nothing_is_refused_where_mmcv_is_compiled(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', ModuleType('mmcv._ext'))
    model = SimpleNamespace(named_modules=lambda: 1 / 0)
    ops.check_operators(model)


# Our commands

TOOLS = ROOT / 'tools'
# How a spawned process imports the command that has started it.
WORKER = """
import runpy
import sys

runpy.run_path(sys.argv[1], run_name='__mp_main__')
import mmdet.datasets
"""


def test_commands_log_the_operators_and_refuse_the_model(
    stand_in, monkeypatch
):
    monkeypatch.syspath_prepend(str(TOOLS))
    from command_line import build_runner

    lines = []
    runner = SimpleNamespace(
        model=build('dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco'),
        logger=SimpleNamespace(info=lines.append),
    )
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: runner)
    with pytest.raises(SystemExit) as end:
        build_runner(Config())
    assert str(end.value).startswith('error: the model needs compiled')
    assert lines == [
        "Operators of mmcv: torchvision's NMS, RoIAlign and sigmoid focal loss"
    ]


def test_spawned_workers_have_the_operators():
    """They unpickle mmdet's data set before anything else is imported."""
    words = ('-c', WORKER, TOOLS / 'train.py')
    done = run(sys.executable, *words, cwd=TOOLS, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    ends = [
        (TOOLS / name).read_text().partition("\nelif __name__ == '__mp_m")[2]
        for name in ('train.py', 'test.py')
    ]
    assert ends[0] == ends[1] != ''


# mmdet's own configs


def build(name):
    """Return a detector of mmdet's own config; nothing is downloaded."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    cfg.model.pop('init_cfg', None)
    return MODELS.build(cfg.model)


def make_batch():
    """Two images of noise, with a box and its mask each."""
    batch = dict(inputs=[], data_samples=[])
    for label in range(2):
        sample = DetDataSample(metainfo=dict(img_id=label))
        masks = torch.zeros(1, 64, 96).numpy().astype('uint8')
        masks[:, 10:50, 20:70] = 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[20.0, 10, 70, 50]]),
            labels=torch.tensor([label]),
            masks=mmdet.structures.mask.BitmapMasks(masks, 64, 96),
        )
        size = dict(img_shape=(64, 96), ori_shape=(64, 96))
        sample.set_metainfo(
            dict(size, scale_factor=(1.0, 1.0), batch_input_shape=(64, 96))
        )
        batch['inputs'].append(
            torch.randint(256, (3, 64, 96), dtype=torch.uint8)
        )
        batch['data_samples'].append(sample)
    return batch


@pytest.mark.parametrize(
    'name',
    [
        'retinanet/retinanet_r50_fpn_1x_coco',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        'atss/atss_r50_fpn_1x_coco',
        'detr/detr_r50_8xb2-150e_coco',
    ],
)
def test_detectors_of_mmdet_train_and_detect(name, stand_in):
    """tests/test_detection_configs.py has Mask R-CNN and Faster R-CNN."""
    model = build(name)
    ops.check_operators(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    data = model.data_preprocessor(make_batch(), training=True)
    losses, _ = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    optimizer.step()
    assert losses.isfinite()
    grads = [p.grad for p in model.backbone.layer4.parameters()]
    assert any(grad is not None and grad.any() for grad in grads)
    model.eval()
    with torch.no_grad():
        found = model.test_step(make_batch())
    assert len(found) == 2
    assert found[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize(
    ('name', 'part'),
    [
        (
            'dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
            'backbone.layer2.0.conv2 (DeformConv2dPack) and 12 more',
        ),
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
