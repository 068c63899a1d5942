# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from plain_reference import DEFAULTS, scfs_step
from torch import nn
from torch.testing import assert_close

ROI = dict(type='RoIFeatureSearch')


def build(cfg):
    """A model whose teacher and centers are no longer what they began as."""
    model = MODELS.build(cfg)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for center in model.centers:
            center.value.normal_(std=0.1)
    return model.double().train()


@pytest.fixture
def samples():
    """Samples of four images whose views overlap or do not."""
    generator = np.random.default_rng(2)
    crops = np.zeros((4, 5, 5), np.float32)
    start = generator.integers(0, 60, (4, 5, 2))
    size = np.array([[30, 40]] * 2 + [[30, 20]] * 3)
    crops[..., :2], crops[..., 2:4] = start, start + size
    crops[..., 4] = generator.integers(0, 2, (4, 5))
    return [DataSample(metainfo=dict(crops=c)) for c in crops]


WEIGHTS = dict(
    type='SCFSHead',
    student_temp=0.2,
    teacher_temp=0.07,
    center_momentum=0.6,
    loss_weight=0.3,
    search_loss=dict(
        type='FeatureSearchLoss', global_weight=0.2, search_weight=0.9
    ),
)


@pytest.mark.parametrize(
    ('change', 'num_local'),
    [
        (None, 3),  # DINO
        (None, 0),  # DINO w/o MC
        (dict(), 3),  # SCFS
        (dict(), 0),  # SCFS w/o MC
        (dict(search_views='first'), 3),  # the release
        (dict(search_views='first'), 0),
        (dict(search_views='none'), 3),  # DINO w ML
        (dict(search_views='none'), 0),
        (dict(search=ROI), 3),  # ROI Crop
        (dict(search=ROI, search_views='first'), 3),
        (dict(search=ROI), 0),
        (dict(search_layers=[2]), 1),
        (dict(head=WEIGHTS), 2),
    ],
)
def test_a_step_equals_plain_loops(change, num_local, request, views, samples):
    kind = 'dino_cfg' if change is None else 'scfs_cfg'
    cfg = request.getfixturevalue(kind) | (change or {})
    for neck in {'neck', 'search_neck'} & set(cfg):
        del cfg[neck]['in_channels']  # the backbone's
    model = build(cfg)
    views = views[: 2 + num_local]
    for sample in samples:
        sample.set_metainfo(dict(crops=sample.crops[: 2 + num_local]))
    losses = model.loss(views, samples)

    parts = (cfg, cfg['head'], cfg['head'].get('search_loss', {}))
    settings = {
        k: v for part in parts for k, v in part.items() if k in DEFAULTS
    }
    crops = np.stack([s.crops for s in samples], 1).tolist()
    assert ('search_pairs' in losses) == (cfg.get('search') == ROI)
    assert 0 < losses.get('search_pairs', 0.5) < 1
    expected, means = scfs_step(model, views, crops, **settings)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(
            losses[name], value, rtol=1e-9, atol=1e-12, check_dtype=False
        )

    # mmengine sums what has "loss" in its name.
    loss, plain = (
        sum(value for name, value in terms.items() if 'loss' in name)
        for terms in (losses, expected)
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    for gradient, reference in zip(
        torch.autograd.grad(loss, trained),
        torch.autograd.grad(plain, trained),
        strict=True,
    ):
        assert reference.norm() > 0
        error = (gradient - reference).norm() / reference.norm()
        # Some gradients are nothing but the rounding of a sum that cancels.
        assert error < 1e-7 or reference.norm() < 1e-12

    teacher = {k: v.clone() for k, v in model.teacher.named_parameters()}
    centers = [center.value.clone() for center in model.centers]
    model.after_step(0.8)
    student = dict(model.named_parameters())
    for name, value in model.teacher.named_parameters():
        wanted = 0.8 * teacher[name] + 0.2 * student[name].detach()
        assert_close(value, wanted, rtol=1e-12, atol=1e-15)
    kept = cfg['head'].get('center_momentum', 0.9)
    for center, old, mean in zip(model.centers, centers, means, strict=True):
        wanted = kept * old + (1 - kept) * mean
        assert_close(center.value, wanted, rtol=1e-9, atol=1e-12)


def test_accumulated_batches_move_centers_as_one(dino_cfg, views):
    model = build(dino_cfg)
    old, seen = model.head.center.value.clone(), 0.0
    for batch in (views, [view[:3] + 1 for view in views]):
        model.loss(batch)
        images = len(batch[0])
        seen += images / 7 * scfs_step(model, batch, [])[1][0]
    model.after_step(1.0)
    expected = 0.9 * old + 0.1 * seen
    assert_close(model.head.center.value, expected)
    # What was seen counts once, and evaluation does not count.
    model.eval().loss(views)
    model.after_step(1.0)
    assert_close(model.head.center.value, expected)


def test_samples_that_lack_the_crops(scfs_cfg, views):
    model = build(scfs_cfg | dict(search=ROI))
    for samples in (None, [DataSample()] * 4):
        with pytest.raises(ValueError, match=r"meta_keys=\('img_path', 'cr"):
            model.loss(views, samples)


def test_search_layers_of_an_unsorted_backbone(scfs_cfg):
    """mmpretrain's backbones give their outputs shallow to deep."""
    del scfs_cfg['search_neck']['in_channels']
    scfs_cfg['backbone']['out_indices'] = (3, 1, 2)
    scfs_cfg['search_layers'] = [3]
    model = MODELS.build(scfs_cfg)
    assert model.head.layer_names == ('layer4',)
    assert model.search_neck.projectors[0].in_channels == 64


def test_teacher_keeps_its_own_batch_norm_statistics(scfs_cfg, views):
    model = build(scfs_cfg)
    model.backbone.bn1.running_mean.fill_(7)
    model.loss(views)
    model.after_step(0.5)
    conv = model.teacher.backbone.conv1
    with torch.no_grad():
        for parameter, student in zip(
            conv.parameters(), model.backbone.conv1.parameters(), strict=True
        ):
            parameter.copy_(2 * parameter - student)  # before the step
    # Momentum 0.1 from 0, by the teacher's own forward pass alone.
    expected = 0.1 * conv(torch.cat(views[:2])).mean((0, 2, 3))
    statistics = model.teacher.backbone.bn1.running_mean
    assert_close(statistics, expected, rtol=1e-9, atol=1e-12)


def test_tensor_mode_gives_the_teacher_by_default(scfs_cfg, views):
    model = build(scfs_cfg).eval()
    maps = model(views[0], mode='tensor')
    assert [m.shape[1] for m in maps] == [16, 32, 64]
    assert torch.equal(maps[-1], model.teacher.backbone(views[0])[-1])
    student = model(views[0], mode='tensor', network='student')
    assert torch.equal(student[-1], model.backbone(views[0])[-1])
    with pytest.raises(ValueError, match="network='both'"):
        model(views[0], network='both')


def test_checkpoint_keys_are_those_that_detectors_load(scfs_cfg):
    keys = MODELS.build(scfs_cfg).state_dict().keys()
    prefixes = {'.'.join(key.split('.')[:2]) for key in keys}
    assert {p for p in prefixes if p.startswith('teacher.')} == {
        'teacher.backbone',
        'teacher.neck',
        'teacher.search_neck',
    }
    assert {key.split('.')[0] for key in keys} == {
        'backbone',
        'neck',
        'search_neck',
        'head',
        'teacher',
    }


def test_initial_teacher_is_the_student(scfs_cfg):
    model = MODELS.build(scfs_cfg)
    model.backbone.bn1.running_mean.fill_(2)  # as loaded
    model.init_weights()
    for name in ('backbone', 'neck', 'search_neck'):
        theirs = getattr(model, name).state_dict()
        for key, value in getattr(model.teacher, name).state_dict().items():
            assert torch.equal(value, theirs[key])
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_teacher_drops_nothing(dino_cfg):
    dino_cfg['backbone'] = dict(
        type='VisionTransformer',
        arch='deit-tiny',
        img_size=32,
        patch_size=16,
        drop_rate=0.1,
        drop_path_rate=0.1,
        layer_cfgs=dict(attn_drop_rate=0.2),
        out_type='cls_token',
    )
    del dino_cfg['neck']['in_channels']
    model = MODELS.build(dino_cfg).train()
    image = torch.randn(2, 3, 32, 32)
    first, second = (model.teacher.backbone(image)[-1] for _ in range(2))
    assert torch.equal(first, second)
    rates = [m.p for m in model.backbone.modules() if type(m) is nn.Dropout]
    assert max(rates) == 0.1
    losses = model.loss([image, image, image])
    assert torch.isfinite(losses['loss_dino'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(search_views='both'), "search_views='both'"),
        (
            dict(search_views='none', search=dict(type='SoftFeatureSearch')),
            "SoftFeatureSearch.* has no effect with model.search_views='none'",
        ),
        (dict(backbone=dict(type='LeNet5')), "'LeNet5' has no out_indices"),
        (dict(search_layers=[0, 3]), r'search_layers=\[0, 3\].*\[1, 2, 3\]'),
        (dict(search_layers=[]), r'search_layers=\[\]'),
        (
            dict(head=dict(type='SCFSHead', num_prototypes=5)),
            'num_prototypes=5 must equal',
        ),
        (dict(head=dict(type='SCFSHead', student_temp=0)), 'student_temp=0'),
        (dict(head=dict(type='SCFSHead', loss_weight=-1)), 'loss_weight=-1'),
        (
            dict(head=dict(type='SCFSHead', center_momentum=2)),
            'center_momentum=2',
        ),
    ],
)
def test_wrong_settings_are_named(scfs_cfg, change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**scfs_cfg, **change})


def test_wrong_views_are_named(scfs_cfg, views):
    model = build(scfs_cfg)
    with pytest.raises(ValueError, match='list of at least two views'):
        model.loss(views[0])
    with pytest.raises(ValueError, match='local views of one shape'):
        model.loss(views[:3] + [views[0]])


def test_views_that_do_not_fit_are_found_before_training(scfs_cfg):
    scfs_cfg['neck']['in_channels'] = 32
    with pytest.raises(ValueError, match='leave model.neck.in_channels'):
        MODELS.build(scfs_cfg).check_fit([(3, 32, 32)])
    scfs_cfg['neck']['in_channels'] = 64
    scfs_cfg['search_neck']['in_channels'] = [16, 32]
    with pytest.raises(
        ValueError, match=r'leave model.search_neck.in_channels'
    ):
        MODELS.build(scfs_cfg).check_fit([(3, 32, 32)])
    scfs_cfg['search_neck']['in_channels'] = [16, 32, 64]
    scfs_cfg['backbone']['in_channels'] = 1
    with pytest.raises(ValueError, match=r'ResNet cannot take .*\(3, 32'):
        MODELS.build(scfs_cfg).check_fit([(3, 32, 32)])
