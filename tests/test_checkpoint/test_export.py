# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import io
import pickle
import pickletools
from itertools import product

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from source_networks import VIT_CFG, shake, torchvision_resnet

import mmscfs
from mmscfs.checkpoint import (
    SUFFIXES,
    FoundBackbone,
    convert,
    describe_source,
    encode,
    find_backbone,
    read_checkpoint,
    read_data_preprocessor,
)

# All that a pickle of arrays calls.
ARRAYS = {
    ('numpy', 'ndarray'),
    ('__builtin__', 'bytearray'),
    ('builtins', 'bytearray'),
    ('_codecs', 'encode'),
}


class ArrayUnpickler(pickle.Unpickler):
    """Restores arrays and plain values, and calls nothing else."""

    def find_class(self, module, name):
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return super().find_class(module, name)


def load_arrays(content):
    """Read a pickle of arrays, with bytes as detectron2 reads them."""
    return ArrayUnpickler(io.BytesIO(content), encoding='latin1').load()


def mm_backbone(cfg, seed=1):
    """A backbone of mmdet or mmpretrain as find_backbone returns it."""
    state = shake(MODELS.build(cfg), seed).state_dict()
    return FoundBackbone('mmscfs', 'teacher', state, ())


@pytest.fixture
def resnet():
    return mm_backbone(
        dict(
            type='mmpretrain.ResNet',
            depth=50,
            stem_channels=4,
            base_channels=8,
        )
    )


@pytest.fixture
def vit():
    return mm_backbone(dict(VIT_CFG, layer_scale_init_value=0.1))


def exported(found, target, suffix, meta=()):
    """Return the content of the file for another project."""
    return encode(convert(found, target), target, suffix, dict(meta))


def assert_same(own, wanted):
    """The same names in the same order, the same types and bits."""
    assert list(own) == list(wanted)
    for key in wanted:
        assert own[key].dtype == wanted[key].dtype
        assert torch.equal(own[key], wanted[key]), key


# Round trips.


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('kind', 'target'),
    [
        ('resnet', 'openmmlab'),
        ('resnet', 'torchvision'),
        ('resnet', 'timm'),
        ('vit', 'openmmlab'),
        ('vit', 'timm'),
    ],
)
def test_round_trip_is_exact(request, tmp_path, kind, target, suffix):
    found = request.getfixturevalue(kind)
    meta = describe_source('epoch_1.pth', {}, found)
    path = tmp_path / f'backbone{suffix}'
    path.write_bytes(exported(found, target, suffix, meta))
    again = find_backbone(read_checkpoint(path))
    # safetensors sorts the names.
    names = sorted(found.state) if suffix == '.safetensors' else found.state
    own = {key: again.state[key] for key in names}
    assert again.state.keys() == found.state.keys()
    assert_same(own, {key: found.state[key] for key in names})
    layouts = {'openmmlab': 'OpenMMLab backbone', 'timm': 'timm'}
    if kind == 'resnet':
        layouts['timm'] = 'torchvision'  # the names are the same
    assert again.layout == layouts.get(target, 'torchvision')
    assert again.heads == ()


def test_half_precision_stays(resnet, tmp_path):
    """But for detectron2, which gets float32."""
    dtype = torch.bfloat16
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in resnet.state.items()
    }
    found = resnet._replace(state=state)
    for suffix in SUFFIXES['openmmlab']:
        path = tmp_path / f'half{suffix}'
        path.write_bytes(exported(found, 'openmmlab', suffix))
        again = find_backbone(read_checkpoint(path)).state
        assert_same({key: again[key] for key in state}, state)
    array = convert(found, 'detectron2')['stem.conv1.weight']
    assert array.dtype == np.float32
    assert torch.equal(torch.tensor(array).to(dtype), state['conv1.weight'])


def test_openmmlab_export_loads_without_mmscfs(tmp_path):
    """By mmengine's own initializer, which knows .pth only."""
    found = mm_backbone(dict(type='mmdet.ResNet', depth=18, base_channels=4))
    path = tmp_path / 'backbone.pth'
    meta = describe_source('epoch_1.pth', {}, found)
    path.write_bytes(exported(found, 'openmmlab', '.pth', meta))
    backbone = MODELS.build(
        dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=4,
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
    )
    backbone.init_weights()
    assert_same(backbone.state_dict(), found.state)


def test_a_part_of_a_larger_tensor_is_saved_alone():
    big = torch.randn(1000, 1000)
    found = FoundBackbone('mmscfs', None, {'x.weight': big[:2, :3].T}, ())
    for suffix in SUFFIXES['openmmlab']:
        content = exported(found, 'openmmlab', suffix)
        assert len(content) < 4000
    assert convert(found, 'openmmlab')['x.weight'].is_contiguous()


OTHER_NETWORKS = (
    dict(type='mmdet.ResNetV1d', depth=50, base_channels=4),
    dict(type='mmdet.SwinTransformer', embed_dims=12, depths=[1] * 4),
    dict(type='mmdet.ResNet', depth=18, norm_cfg=dict(type='IN')),
)


@pytest.mark.parametrize(
    ('target', 'cfg'),
    [
        *product(('torchvision', 'timm', 'detectron2'), OTHER_NETWORKS),
        ('torchvision', VIT_CFG),
    ],
)
def test_other_networks_are_refused(target, cfg):
    found = mm_backbone(cfg)
    if 'norm_cfg' in cfg:  # a ResNet with a tensor more
        found.state['layer1.0.context.weight'] = torch.ones(1)
    with pytest.raises(
        ValueError, match='this mmscfs, teacher backbone (is|does)'
    ):
        convert(found, target)


@pytest.mark.parametrize(
    'key', ['layers.0.ffn.w12.weight', 'ln2.weight', 'layers.0.attn']
)
def test_vit_with_another_part_is_refused_for_timm(vit, key):
    vit.state[key] = torch.ones(1)
    with pytest.raises(ValueError, match=f'has no {key}'):
        convert(vit, 'timm')


# detectron2.


def detectron2_shapes(blocks):
    """Names and shapes of a bottleneck ResNet from its definition.

    A stage of width w has bottlenecks w, w, 4w behind a shortcut where the
    number of channels changes; the widths are 64, 128, 256, 512.
    """
    shapes = {}

    def conv(name, out_channels, in_channels, size):
        shapes[f'{name}.weight'] = (out_channels, in_channels, size, size)
        for part in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'{name}.norm.{part}'] = (out_channels,)

    conv('stem.conv1', 64, 3, 7)
    channels = 64
    for i, count in enumerate(blocks):
        width = 64 * 2**i
        for j in range(count):
            block = f'res{i + 2}.{j}'
            if j == 0:
                conv(f'{block}.shortcut', 4 * width, channels, 1)
            conv(f'{block}.conv1', width, channels, 1)
            conv(f'{block}.conv2', width, width, 3)
            conv(f'{block}.conv3', 4 * width, width, 1)
            channels = 4 * width
    return shapes


def test_detectron2_keys_and_shapes():
    found = find_backbone(torchvision_resnet(50, seed=1).state_dict())
    content = exported(found, 'detectron2', '.pkl')
    loaded = load_arrays(content)
    assert loaded.keys() == {'model', '__author__', 'matching_heuristics'}
    assert loaded['matching_heuristics'] is True
    model, shapes = loaded['model'], detectron2_shapes((3, 4, 6, 3))
    assert {key: value.shape for key, value in model.items()} == shapes
    assert len(model) == 5 * 53
    assert {value.dtype for value in model.values()} == {np.dtype('float32')}
    for ours, theirs in (
        ('conv1.weight', 'stem.conv1.weight'),
        ('bn1.running_mean', 'stem.conv1.norm.running_mean'),
        ('layer1.0.downsample.0.weight', 'res2.0.shortcut.weight'),
        ('layer1.0.downsample.1.bias', 'res2.0.shortcut.norm.bias'),
        ('layer2.3.conv2.weight', 'res3.3.conv2.weight'),
        ('layer3.5.bn3.running_var', 'res4.5.conv3.norm.running_var'),
        ('layer4.2.bn1.weight', 'res5.2.conv1.norm.weight'),
    ):
        np.testing.assert_array_equal(model[theirs], found.state[ours])


def test_detectron2_pickle_suits_every_numpy(resnet):
    content = exported(resnet, 'detectron2', '.pkl')
    operations = list(pickletools.genops(content))
    assert operations[0][1] == 2  # the protocol
    names = {arg for op, arg, _ in operations if op.name == 'GLOBAL'}
    assert names == {
        'numpy ndarray',
        '__builtin__ bytearray',
        '_codecs encode',
    }
    loaded = load_arrays(content)
    for value in loaded['model'].values():
        assert value.flags.writeable  # torch.from_numpy warns otherwise


def test_basic_blocks_are_refused_for_detectron2():
    found = mm_backbone(dict(type='mmdet.ResNet', depth=18, base_channels=4))
    with pytest.raises(
        ValueError, match=r'ResNet of basic blocks \[2, 2, 2, 2\]; only bott'
    ):
        convert(found, 'detectron2')


# Where the weights come from.


def test_metadata_says_where_weights_come_from(resnet, tmp_path):
    """The same in both kinds of files, and after a second export."""
    cfg = f"model = dict(type='SCFS', data_preprocessor=dict({MEANS}))"
    own = dict(meta=dict(cfg=cfg, epoch=3, world_size=8, iter=1))
    meta = describe_source('work/epoch_3.pth', own, resnet)
    assert meta == dict(
        source='epoch_3.pth',
        layout='mmscfs',
        network='teacher',
        mmscfs_version=mmscfs.__version__,
        cfg=cfg,
        data_preprocessor=dict(VALUES, channel_order='BGR'),
        epoch=3,
        world_size=8,
    )
    for suffix in SUFFIXES['openmmlab']:
        copy = tmp_path / f'copy{suffix}'
        copy.write_bytes(exported(resnet, 'openmmlab', suffix, meta))
        again = read_checkpoint(copy)
        told = describe_source(copy, again, find_backbone(again))
        own = dict(source=copy.name, layout='OpenMMLab backbone')
        assert told == meta | own
    assert {*describe_source('a.pth', dict(meta=None), resnet)} == {
        *('source', 'layout', 'network', 'mmscfs_version')
    }


MEANS = 'mean=[1, 2, 3], std=[4, 5, 6.5]'
VALUES = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.5])


@pytest.mark.parametrize(
    ('cfg', 'order'),
    [
        (f'data_preprocessor = dict({MEANS}, to_rgb=True)', 'RGB'),
        (f'data_preprocessor = dict({MEANS}, bgr_to_rgb=True)', 'RGB'),
        (f'data_preprocessor = dict({MEANS})', 'BGR'),
        (
            'data_preprocessor = dict(mean=[0], std=[1])\n'
            f'model = dict(data_preprocessor=dict({MEANS}, to_rgb=True))',
            'RGB',
        ),
        (
            "model = dict({'data_preprocessor': {'mean': (1, 2, 3), "
            "'std': (4, 5, 6.5), 'to_rgb': True}})",
            'RGB',
        ),
    ],
)
def test_reads_the_data_preprocessor(cfg, order):
    expected = dict(VALUES, channel_order=order)
    assert read_data_preprocessor(cfg) == expected


@pytest.mark.parametrize(
    'cfg',
    [
        '',
        'data_preprocessor = None',
        'data_preprocessor = dict(mean=None, std=None)',
        'data_preprocessor = dict(mean=[1], std=',
        f'data_preprocessor = dict({MEANS}, to_rgb=flag)',
    ],
)
def test_other_texts_tell_no_data_preprocessor(cfg):
    assert read_data_preprocessor(cfg) is None
