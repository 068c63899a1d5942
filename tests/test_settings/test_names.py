# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Settings that nothing reads, and configs of which each is read."""

import re
from pathlib import Path

import mmdet
import mmpretrain
import pytest
from mmengine.registry import HOOKS

from mmscfs.settings import read_config

CONFIGS = Path(__file__).parents[2] / 'configs'
OURS = [
    path
    for path in sorted(CONFIGS.rglob('*.py'))
    if path.relative_to(CONFIGS).parts[0] not in ('_base_', 'sweeps')
]
SCFS = 'scfs_r50.py'
RCNN = 'detection/coco/mask-rcnn_r50-fpn_1x_coco.py'
KNN = 'classification/knn/knn_resnet50_in1k.py'
# One for each method or part of mmdet and mmpretrain.
MMDET = """
cascade_rcnn/cascade-mask-rcnn_r101_fpn_1x_coco
convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco
dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco
detr/detr_r50_8xb2-150e_coco
dino/dino-4scale_r50_8xb2-12e_coco
htc/htc_r50_fpn_1x_coco
lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1
mask2former/mask2former_r50_8xb2-lsj-50e_coco
misc/d2_mask-rcnn_r50-caffe_fpn_ms-90k_coco
rtmdet/rtmdet_tiny_8xb32-300e_coco
seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1
swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco
yolox/yolox_s_8xb8-300e_coco
"""
MMPRETRAIN = """
barlowtwins/barlowtwins_resnet50_8xb256-coslr-300e_in1k
beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k
flamingo/flamingo_fewshot_caption
mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k
resnet/resnet50_8xb32-mixup_in1k
swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px
vision_transformer/vit-base-p16_32xb128-mae_in1k
"""
THEIRS = [
    Path(package.__file__).parent / '.mim' / 'configs' / f'{name}.py'
    for package, names in ((mmdet, MMDET), (mmpretrain, MMPRETRAIN))
    for name in names.split()
]


@pytest.mark.parametrize('path', OURS + THEIRS, ids=lambda path: path.stem)
def test_every_setting_of_a_working_config_is_read(path, read):
    cfg, changes = read(path)
    assert cfg.filename == str(path)
    assert changes == []


@pytest.mark.parametrize(
    ('name', 'option', 'near'),
    [
        # Sections
        (SCFS, 'max_epochs', 'train_cfg.max_epochs'),
        (SCFS, 'train_dataloadr.batch_size', 'train_dataloader'),
        (SCFS, 'learning_rate', 'optim_wrapper.optimizer.lr'),
        (SCFS, 'seed', 'randomness.seed'),
        (SCFS, 'multi_crops.hue', 'multi_crop'),
        # Keys of parts that have no type
        (SCFS, 'train_dataloader.batchsize', 'batch_size'),
        (SCFS, 'train_cfg.epochs', 'max_epochs'),
        (SCFS, 'randomness.sed', 'seed'),
        (SCFS, 'optim_wrapper.clip_grad.max_nrom', 'max_norm'),
        (SCFS, 'default_hooks.chekpoint.interval', 'checkpoint'),
        (RCNN, 'model.test_cfg.rcnn.scor_thr', 'score_thr'),
        # Arguments of types
        (SCFS, 'model.neck.num_prototype', 'num_prototypes'),
        (SCFS, 'optim_wrapper.optimizer.momentm', 'momentum'),
        (SCFS, 'optim_wrapper.optimizer.learning_rate', 'lr'),
        (SCFS, 'multi_crop.num_locl', 'num_local'),
        (SCFS, 'param_scheduler.1.eta_minimum', 'eta_min'),
        # Of a hook, of what it hands on, and of one that takes any
        (SCFS, 'default_hooks.collapse_monitor.windw', 'window'),
        (SCFS, 'default_hooks.checkpoint.intervl', 'interval'),
        # Of detectors and classifiers
        (RCNN, 'model.roi_head.bbox_head.num_clases', 'num_classes'),
        (RCNN, 'val_evaluator.metrics', 'metric'),
        (KNN, 'test_cfg.kss', 'ks'),
    ],
)
def test_a_misspelt_option_is_refused(name, option, near, read):
    with pytest.raises(ValueError, match='^no setting ') as caught:
        read(name, {option: 1})
    text = str(caught.value).removeprefix('no setting ').rstrip('?')
    named, found = text.split('; did you mean ')
    assert found.split(' or ')[0] == near
    # Below a part that is not there, the part is named.
    assert f'{option}.'.startswith(f'{named}.')
    assert ' | ' not in str(caught.value)  # one problem


@pytest.mark.parametrize(
    ('name', 'option', 'message'),
    [
        # Where nothing is near, all that is there
        (
            SCFS,
            'default_hooks.frozen_prototypes.xyz',
            'xyz; FrozenPrototypesHook takes epochs, priority',
        ),
        # A variable that is in its place already
        (
            RCNN,
            'data_root',
            'data_root is a variable, and the config has already put its '
            'value into train_dataloader.dataset.data_root, val_dataloader',
        ),
    ],
)
def test_an_option_without_effect_is_refused(name, option, message, read):
    with pytest.raises(ValueError, match='^no setting ') as caught:
        read(name, {option: 1})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('param_scheduler.2.end', 'Index 2 exceeds the length'),
        ('train_cfg.max_epochs.x', "max_epochs={'x': 1} in child config"),
    ],
)
def test_a_path_that_leads_nowhere(option, message, read):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(SCFS, {option: 1})
    assert option in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        (
            SCFS,
            'train_dataloadr = dict(batch_size=8)',
            'child.py); did you mean train_dataloader?',
        ),
        (SCFS, 'max_epochs = 4', 'did you mean train_cfg.max_epochs?'),
        (
            SCFS,
            'model = dict(head=dict(centre_momentum=0.5))',
            'no setting model.head.centre_momentum; did you mean center_mom',
        ),
        (
            SCFS,
            'multi_crop = dict(num_local=6)',
            'child.py has no effect: the file that it inherits from has '
            'already put another value into train_dataloader.dataset.'
            'pipeline.1. Set it there instead',
        ),
        (
            RCNN,
            "data_root = 'my/data/'",
            'put another value into train_dataloader.dataset.data_root, val_',
        ),
        (
            RCNN,
            'train_dataloader = dict(dataset=dict(anno_file="a.json"))',
            'train_dataloader.dataset.anno_file; did you mean ann_file?',
        ),
        (
            SCFS,
            'own = 3\nmax_epochs = 4',
            'mean train_cfg.max_epochs? | no setting own (',
        ),
    ],
)
def test_what_has_no_effect_in_a_file_is_refused(name, text, message, read):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(name, text=text)


@pytest.mark.parametrize(
    ('name', 'text', 'options'),
    [
        (SCFS, 'size = 64\ntrain_dataloader = dict(batch_size=size)', {}),
        (
            SCFS,
            'crop = dict(_base_.multi_crop, num_local=6)\n'
            'train_dataloader = dict(dataset=dict(pipeline=[crop]))',
            {},
        ),
        (
            SCFS,
            '',
            {'multi_crop.num_local': 6, 'find_unused_parameters': True},
        ),
        (SCFS, '', {'default_hooks.checkpoint.by_epoch': False}),
        (SCFS, '', {'log_processor.window_size': 20}),
        # What they take by **kwargs
        (SCFS, 'custom_hooks = [dict(type="OwnHook", any=3, priority=1)]', {}),
        (SCFS, 'evaluation = dict(dataset="mine")', {}),
        # What one nobody reads, but nobody could mistake
        (RCNN, '', {'model.test_cfg.rcnn.nms.max_num': 100}),
        # A builder's own, and names that a user chooses
        (
            SCFS,
            'optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict('
            'layer_a=dict(lr_mult=0.1), layer_b=dict(lr_mult=0.1))))',
            {},
        ),
    ],
)
def test_what_has_an_effect_is_taken(name, text, options, read):
    read(name, options, text)


def test_a_config_that_a_run_has_written_is_taken(read, tmp_path):
    """Its variables are in their places already."""
    cfg, _ = read(RCNN, {'train_dataloader.dataset.data_root': 'my/data'})
    written = tmp_path / 'written.py'
    cfg.dump(written)
    assert read(written)[0].data_root == 'data/coco/'


def test_the_home_directory_is_put_in(read, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', '/home/me')
    cfg, _ = read(
        RCNN,
        {
            'train_dataloader.dataset.data_root': '~/coco',
            'load_from': '~/a.pth',
            'work_dir': '~',
            'val_evaluator.ann_file': 'a~/b',
        },
        'model = dict(backbone=dict(init_cfg=dict(_delete_=True, '
        "type='Pretrained', checkpoint='~/b.pth')))",
    )
    assert cfg.train_dataloader.dataset.data_root == '/home/me/coco'
    assert cfg.load_from == '/home/me/a.pth'
    assert cfg.work_dir == '/home/me'
    assert cfg.val_evaluator.ann_file == 'a~/b'
    assert cfg.model.backbone.init_cfg.checkpoint == '/home/me/b.pth'


def test_modules_of_the_config_register_types(tmp_path, monkeypatch):
    (tmp_path / 'own_hooks.py').write_text(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n\n\n'
        '@HOOKS.register_module()\n'
        'class OwnHook(Hook):\n'
        '    def __init__(self, level): pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(HOOKS.module_dict, 'OwnHook', None)  # taken out later
    del HOOKS.module_dict['OwnHook']
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['own_hooks'])\n"
        "custom_hooks = [dict(type='OwnHook', level=3)]\n"
    )
    read_config(config)
    with pytest.raises(ValueError, match='did you mean level?'):
        read_config(config, {'custom_hooks.0.levl': 3})
    with pytest.raises(ValueError, match='no_module.*into PYTHONPATH'):
        read_config(config, {'custom_imports.imports': ['no_module']})


@pytest.mark.parametrize(
    'text',
    [
        'means = []\nfor _ in range(3):\n    means.append(1.0)\n'
        'model = dict(data_preprocessor=dict(mean=means))',
        "optim_wrapper = dict(_delete_=True, constructor='Gan', "
        "generator=dict(type='OptimWrapper'))",
        'default_hooks = dict(pictures=None)',
    ],
)
def test_what_is_right_is_not_refused(tmp_path, text):
    path = tmp_path / 'a.py'
    path.write_text(f"_base_ = ['mmscfs::scfs_r50.py']\n{text}\n")
    read_config(str(path))
