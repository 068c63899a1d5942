# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from plain_reference import dino_loss, roi_crop, search, search_loss
from torch import nn
from torch.testing import assert_close


def build(cfg):
    model = MODELS.build(cfg)
    model.init_weights()
    return model.double().train()


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def shake_teacher(model):
    """Make teacher and student differ, as they do once trained."""
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def plain_total(model, views, crops=None):
    """The total of Eq. 11 from backbone outputs on, by plain loops.

    Views go through the networks in the batches that batch norm is defined
    on: global views, local views, and all that the search found in a layer.
    """
    batch = len(views[0])
    head, teacher = model.head, model.teacher
    s_global = model.backbone(torch.cat(views[:2]))
    s_local = model.backbone(torch.cat(views[2:])) if views[2:] else None
    with torch.no_grad():
        t_global = teacher.backbone(torch.cat(views[:2]))

    def prototypes(network, maps):
        x = network.neck.mlp(maps[-1].mean((2, 3)))
        x = x / x.norm(dim=-1, keepdim=True)
        w = network.neck.prototypes.weight
        return (x @ (w / w.norm(dim=-1, keepdim=True)).T).unflatten(
            0, (-1, batch)
        )

    student = [prototypes(model, maps) for maps in (s_global, s_local) if maps]
    with torch.no_grad():
        teacher_logits = prototypes(teacher, t_global)
    temperatures = head.student_temp, head.teacher_temp
    value = dino_loss(
        torch.cat(student), teacher_logits, head.center.value, *temperatures
    )
    if not hasattr(model, 'search_neck'):
        return value
    # Pairs of the search: the places of the query and of the key views.
    among_global = s_local is None
    searched = {'all': [0, 1], 'first': [0], 'none': []}[model.search_views]
    pairs = [
        (query, key)
        for key in searched
        for query in ([1 - key] if among_global else range(len(views) - 2))
    ]
    for layer, projector in enumerate(model.search_neck.projectors):
        target = teacher.search_neck.projectors[layer]
        queries = s_global[layer] if among_global else s_local[layer]
        logits = projector(queries).unflatten(0, (-1, batch))
        queries = queries.unflatten(0, (-1, batch))
        keys = t_global[layer].unflatten(0, (-1, batch))
        with torch.no_grad():
            t_layer = target(t_global[layer]).unflatten(0, (-1, batch))
        value = value + 0.5 * dino_loss(
            projector(s_global[layer]).unflatten(0, (-1, batch)),
            t_layer,
            head.search_centers[layer].value,
            *temperatures,
        )
        if not pairs:
            continue
        found, shown = [], []
        for query, key in pairs:
            for b in range(batch):
                part = None
                if crops is not None:
                    place = query if among_global else query + 2
                    part = roi_crop(
                        crops[place][b],
                        queries[query, b],
                        crops[key][b],
                        keys[key, b],
                    )
                    shown.append(part is not None)
                if crops is None:
                    part = search(queries[query, b], keys[key, b])
                elif part is None:  # batch norm sees the whole view
                    whole = (0, 0, 1, 1)
                    part = roi_crop(
                        (*whole, crops[place][b][4]),
                        queries[query, b],
                        (*whole, crops[key][b][4]),
                        keys[key, b],
                    )
                found.append(part)
        with torch.no_grad():
            t_search = target(torch.stack(found)).unflatten(0, (-1, batch))
        # As one teacher view for each pair: (1, pairs, B, K).
        value = value + 0.5 * search_loss(
            torch.stack([logits[query] for query, _ in pairs]),
            t_search[None],
            *temperatures,
            torch.tensor(shown).view(1, -1, batch) if shown else None,
        )
    return value


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


@pytest.mark.parametrize(
    ('change', 'num_local'),
    [
        (None, 3),  # DINO
        (None, 0),  # DINO w/o MC
        (dict(), 3),  # SCFS
        (dict(search_views='first'), 3),  # the release
        (dict(search_views='none'), 3),  # DINO w ML
        (dict(search_views='none'), 0),
        (dict(search=dict(type='RoIFeatureSearch')), 3),  # ROI Crop
        (
            dict(search=dict(type='RoIFeatureSearch'), search_views='first'),
            3,
        ),
        (dict(search=dict(type='RoIFeatureSearch')), 0),
        (dict(), 0),  # SCFS w/o MC
        (dict(search_views='first'), 0),
    ],
)
def test_total_and_gradients_equal_plain_loops(
    change, num_local, request, views, samples
):
    kind = 'dino_cfg' if change is None else 'scfs_cfg'
    cfg = request.getfixturevalue(kind) | (change or {})
    model = build(cfg)
    shake_teacher(model)
    for center in model.centers:
        center.value.normal_(std=0.1)
    views = views[: 2 + num_local]
    for sample in samples:
        sample.set_metainfo(dict(crops=sample.crops[: 2 + num_local]))
    crops = None
    if 'search' in cfg:
        crops = np.stack([s.crops for s in samples], 1).tolist()
    losses = model.loss(views, samples)
    loss = total(losses)
    if crops is not None:
        assert 0 < losses['search_pairs'] < 1
    expected = plain_total(model, views, crops)
    assert_close(loss, expected, rtol=1e-9, atol=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(loss, trained)
    plain = torch.autograd.grad(expected, trained)
    for gradient, reference in zip(ours, plain, strict=True):
        assert reference.norm() > 0
        error = (gradient - reference).norm() / reference.norm()
        # Some gradients are nothing but the rounding of a sum that cancels.
        assert error < 1e-7 or reference.norm() < 1e-12


def test_every_global_pair_alone(scfs_cfg, views):
    """G_d2G_f of Table 7: the search between global views, nothing else."""
    scfs_cfg['head'].update(
        loss_weight=0.0, search_loss=dict(type='FeatureSearchLoss')
    )
    scfs_cfg['head']['search_loss'].update(global_weight=0.0, search_weight=1)
    losses = build(scfs_cfg).loss(views[:2])
    terms = {k: v for k, v in losses.items() if 'loss' in k}
    assert {k for k, v in terms.items() if v > 0} == {
        f'loss_{layer}_search' for layer in ('layer2', 'layer3', 'layer4')
    }


def test_roi_crop_asks_for_the_crops(scfs_cfg, views):
    model = build(scfs_cfg | dict(search=dict(type='RoIFeatureSearch')))
    for samples in (None, [DataSample()] * 4):
        with pytest.raises(ValueError, match=r"meta_keys=\('img_path', 'cr"):
            model.loss(views, samples)


def test_losses_are_named_and_health_figures_not_summed(scfs_cfg, views):
    losses = build(scfs_cfg).loss(views)
    layers = ('layer2', 'layer3', 'layer4')
    assert {k for k in losses if 'loss' in k} == {'loss_dino'} | {
        f'loss_{layer}_{term}'
        for layer in layers
        for term in ('global', 'search')
    }
    assert set(losses) >= {
        'teacher_entropy',
        'teacher_student_kl',
        'center_norm',
        'feature_std',
        *(f'{layer}_teacher_entropy' for layer in layers),
    }


def cosines(network, views):
    """Backbone, pooling and neck of views (B, 3, S, S): (V, B, K)."""
    maps = network.backbone(torch.cat(views))[-1]
    return network.neck([maps.mean((2, 3))], len(views[0])).compute()


def test_health_figures_by_their_definitions(dino_cfg, views):
    model = build(dino_cfg)
    shake_teacher(model)
    losses = model.loss(views)
    with torch.no_grad():
        maps = model.teacher.backbone(torch.cat(views[:2]))
        teacher = cosines(model.teacher, views[:2])
        teacher = F.softmax(teacher / 0.04, -1)
        student = [cosines(model, views[:2]), cosines(model, views[2:])]
        student = F.softmax(torch.cat(student) / 0.1, -1)
        kl = [
            (teacher[t] * (teacher[t] / student[v]).log()).sum(-1).mean()
            for t in range(2)
            for v in range(5)
            if t != v
        ]
        entropy = -(teacher * teacher.log()).sum(-1).mean()
    assert_close(losses['teacher_entropy'], entropy)
    assert_close(losses['teacher_student_kl'], sum(kl) / len(kl))
    assert losses['center_norm'] == 0
    features = F.normalize(maps[-1].mean((2, 3)), dim=-1)
    assert_close(losses['feature_std'], features.std(0).mean() * 8)


def test_dino_without_local_views_has_two_pairs(dino_cfg, views):
    model = build(dino_cfg)
    loss = model.loss(views[:2])['loss_dino']
    student = cosines(model, views[:2])
    teacher = cosines(model.teacher, views[:2])
    zero = torch.zeros(12, dtype=torch.float64)
    expected = dino_loss(student, teacher, zero, 0.1, 0.04)
    assert_close(loss, expected, rtol=1e-9, atol=0)


def test_search_layers_can_be_chosen(scfs_cfg, views):
    scfs_cfg['search_layers'] = [3]
    del scfs_cfg['search_neck']['in_channels']
    losses = build(scfs_cfg).loss(views)
    assert {k for k in losses if 'loss' in k} == {
        'loss_dino',
        'loss_layer4_global',
        'loss_layer4_search',
    }


def test_search_layers_of_an_unsorted_backbone(scfs_cfg):
    """mmpretrain's backbones give their outputs shallow to deep."""
    del scfs_cfg['search_neck']['in_channels']
    scfs_cfg['backbone']['out_indices'] = (3, 1, 2)
    scfs_cfg['search_layers'] = [3]
    model = build(scfs_cfg)
    assert model.head.layer_names == ('layer4',)
    assert model.search_neck.projectors[0].in_channels == 64
    assert model.neck.in_channels == 64


def test_a_backbone_without_named_outputs(scfs_cfg):
    scfs_cfg['backbone'] = dict(type='LeNet5')
    with pytest.raises(ValueError, match="type='LeNet5' has no out_indices"):
        MODELS.build(scfs_cfg)


def test_teacher_keeps_its_own_batch_norm_statistics(scfs_cfg, views):
    model = build(scfs_cfg)
    shake_teacher(model)
    model.backbone.bn1.running_mean.fill_(7)
    model.loss(views)
    conv = model.teacher.backbone.conv1(torch.cat(views[:2]))
    # Momentum 0.1 from 0, by the teacher's own forward pass alone.
    expected = 0.1 * conv.mean((0, 2, 3))
    statistics = model.teacher.backbone.bn1.running_mean
    assert_close(statistics, expected, rtol=1e-9, atol=1e-12)
    model.after_step(0.5)
    assert_close(statistics, expected, rtol=1e-9, atol=1e-12)
    assert model.backbone.bn1.running_mean.mean() > 5


def teacher_means(model, views):
    """The mean teacher output of each center, last layer first."""
    with torch.no_grad():
        maps = model.teacher.backbone(torch.cat(views[:2]))
        means = [cosines(model.teacher, views[:2]).mean((0, 1))]
        if hasattr(model, 'search_neck'):
            means += [x.mean(0) for x in model.teacher.search_neck(maps)]
    return means


def test_after_step_averages_parameters_and_moves_centers(scfs_cfg, views):
    model = build(scfs_cfg)
    shake_teacher(model)
    before = {k: v.clone() for k, v in model.teacher.named_parameters()}
    model.loss(views)
    means = teacher_means(model, views)
    assert not any(center.value.any() for center in model.centers)
    model.after_step(0.9)
    student = dict(model.named_parameters())
    for name, value in model.teacher.named_parameters():
        expected = 0.9 * before[name] + 0.1 * student[name]
        assert_close(value, expected.detach())
    moved = [center.value.clone() for center in model.centers]
    for value, mean in zip(moved, means, strict=True):
        assert_close(value, 0.1 * mean)
    # What was seen counts once, and evaluation does not count.
    model.eval().loss(views)
    model.after_step(0.9)
    assert_close([center.value for center in model.centers], moved)


def test_accumulated_batches_move_centers_as_one(dino_cfg, views):
    model, means = build(dino_cfg), []
    for batch in (views, [view.flip(0) + 1 for view in views]):
        model.loss(batch)
        means += teacher_means(model, batch)
    model.after_step(1.0)
    assert_close(model.head.center.value, 0.1 * (means[0] + means[1]) / 2)


def test_tensor_mode_gives_the_teacher_unless_asked(scfs_cfg, views):
    model = build(scfs_cfg).eval()
    shake_teacher(model)
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
    model = build(scfs_cfg)
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
