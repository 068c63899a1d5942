# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""VOC's classification by SVMs, from the files to the table of results."""

import copy
import json

import numpy as np
import pytest
import torch
from classification_data import write_voc
from commands import ROOT, call
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from toy_runs import in_processes, set_weights

from mmscfs.evaluation import svm_average_precision

CONFIG = ROOT / 'configs/classification/svm/linear-svm_resnet50_voc07.py'
CLASSES = ['bird', 'cat', 'dog']
COSTS = [0.1, 10.0]
ABSENT, DIFFICULT, SHOWN = -1, 0, 1


def choose_labels(seed, count):
    """Labels (count, 3); a third of what is shown is "difficult" alone."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1, -1, -1, 0, 1, 1], (count, 3))


LABELS = dict(trainval=choose_labels(0, 24), test=choose_labels(1, 15))


def write_split(root, split, labels):
    images = {}
    for i, row in enumerate(labels):
        shown = [n for n, y in zip(CLASSES, row, strict=True) if y == SHOWN]
        difficult = [
            name
            for name, y in zip(CLASSES, row, strict=True)
            # Beside an easy one, a difficult object changes nothing.
            if y == DIFFICULT or (y == SHOWN and i % 2)
        ]
        images[f'{split}_{i:03d}'] = shown, difficult
    write_voc(root, split, images)


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp('VOCdevkit') / 'VOC2007'
    for split, labels in LABELS.items():
        write_split(root, split, labels)
    return root


@pytest.fixture(scope='module')
def options(voc):
    """Settings of the config that make it small."""
    settings = dict(
        batch_size=5,
        num_workers=0,
        persistent_workers=False,
    )
    places = 'test_dataloader', 'test_cfg.bank_dataloader'
    found = {
        f'{place}.{name}': value
        for place in places
        for name, value in settings.items()
    }
    for place in places:
        found[f'{place}.dataset.data_root'] = str(voc)
        found[f'{place}.dataset.metainfo.classes'] = CLASSES
        for i, size in ((1, 'scale'), (2, 'crop_size')):
            found[f'{place}.dataset.pipeline.{i}.{size}'] = 40
    for name, value in dict(depth=18, stem_channels=8).items():
        found[f'model.backbone.{name}'] = value
    return found | {'model.backbone.base_channels': 8, 'test_cfg.costs': COSTS}


@pytest.fixture
def cfg(options, tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(copy.deepcopy(options))
    cfg.work_dir = str(tmp_path / 'work')
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.sync_bn = None
    cfg.log_level = 'WARNING'
    return cfg


def make_backbone(cfg):
    """A network that is always the same."""
    init_default_scope('mmpretrain')
    backbone = MODELS.build(cfg.model.backbone)
    backbone.eval()
    set_weights(backbone)
    return backbone


def run_test(cfg):
    runner = Runner.from_cfg(cfg)
    runner.model.backbone.load_state_dict(make_backbone(cfg).state_dict())
    return runner.test()


def plain_metrics(cfg, layers=('layer4',)):
    """Features of one image at a time, and labels that are not VOC's."""
    backbone = make_backbone(cfg)
    preprocess = MODELS.build(
        dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    )
    features = {}
    for loader in (cfg.test_cfg.bank_dataloader, cfg.test_dataloader):
        for sample in DATASETS.build(loader.dataset):
            batch = dict(inputs=sample['inputs'][None], data_samples=None)
            with torch.no_grad():
                outputs = backbone(preprocess(batch)['inputs'])
            for i, output in zip((2, 3, 4), outputs, strict=True):
                key = f'layer{i}', loader.dataset.split
                features.setdefault(key, []).append(output[0].mean((1, 2)))
    found = {}
    for layer in layers:
        for i, name in enumerate(CLASSES):
            precision, _ = svm_average_precision(
                torch.stack(features[layer, 'trainval']),
                torch.from_numpy(LABELS['trainval'][:, i]),
                torch.stack(features[layer, 'test']),
                torch.from_numpy(LABELS['test'][:, i]),
                COSTS,
            )
            found[f'svm/AP_{name}'] = 100 * precision
        mean = sum(found[f'svm/AP_{name}'] for name in CLASSES) / 3
        found[f'svm/{layer}_mAP'] = mean
    return found | {'svm/mAP': mean}


@pytest.fixture
def checkpoint(cfg, tmp_path):
    """A file of the network that is always the same."""
    state = make_backbone(cfg).state_dict()
    state = {f'backbone.{key}': value for key, value in state.items()}
    path = tmp_path / 'resnet.pth'
    torch.save(dict(state_dict=state), path)
    return path


def test_from_a_checkpoint_to_the_table(cfg, options, checkpoint, tmp_path):
    texts = [
        f'{key}=[{",".join(map(str, value))}]'
        if isinstance(value, list)
        else f'{key}={value}'
        for key, value in options.items()
    ]
    work = tmp_path / 'work'
    done = call(
        *('tools/test.py', CONFIG, '--pretrained', checkpoint),
        *('--work-dir', work, '--cfg-options', *texts),
    )
    assert done.returncode == 0, done.output
    file = tmp_path / 'resnet.linear-svm_resnet50_voc07.json'
    result = json.loads(file.read_text())
    assert (result['protocol'], result['dataset']) == ('svm', 'voc07')
    assert result['settings'] == dict(train_images=24, val_images=15)
    expected = plain_metrics(cfg)
    assert result['metrics'] == pytest.approx(expected, abs=1e-6)
    precisions = [expected[f'svm/AP_{name}'] for name in CLASSES]
    assert len(set(precisions)) == 3
    # Colors are seen: chance is the share of the images with the class.
    known = LABELS['test'] != DIFFICULT
    share = (LABELS['test'] == SHOWN).sum(0) / known.sum(0)
    assert expected['svm/mAP'] > 100 * share.mean() + 10

    out = tmp_path / 'out'
    table = 'tools/analysis_tools/results_table.py'
    assert call(table, tmp_path, '--out', out).returncode == 0
    text = (out / 'results.md').read_text()
    part = '24 of 5011 training images, 15 of 4952 validation images'
    assert f'voc07, {part}' in text
    assert 'SVM mAP' in text
    assert f'{expected["svm/mAP"]:.1f}' in text


def test_two_processes_find_what_one_finds(cfg, tmp_path):
    """Each has a part of the images, and of the classes of every layer."""
    cfg.test_cfg.layers = 'all'
    cfg.test_cfg.features = str(tmp_path / 'features')
    found = in_processes(run_test, 2, tmp_path, cfg)
    assert found[0] == found[1]
    expected = plain_metrics(cfg, ('layer2', 'layer3', 'layer4'))
    assert found[0] == pytest.approx(expected, abs=1e-6)
    # Kept with their labels, and used again.
    kept = np.load(tmp_path / 'features/queries/labels.npy')
    np.testing.assert_array_equal(kept, LABELS['test'])
    assert run_test(cfg) == found[0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'test_cfg.costs': [0]}, r'costs=\[0\] must be one or more, each'),
        (
            {'test_dataloader.dataset.metainfo.classes': ['cat', 'dog']},
            r"queries \['cat', 'dog'\]; both need the same",
        ),
        (
            {
                f'{place}.dataset.metainfo.classes': ['cat', 'train']
                for place in ('test_dataloader', 'test_cfg.bank_dataloader')
            },
            "class 'train' of the bank: 0 of 24 images are with the class",
        ),
        (
            {'test_cfg.folds': 20},
            "class 'bird' of the bank: .* an SVM needs 20 or more",
        ),
    ],
)
def test_bad_settings_are_refused_with_the_loop(cfg, change, message):
    cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        _ = Runner.from_cfg(cfg).test_loop


def test_one_label_an_image_is_refused(cfg, tmp_path):
    dataset = dict(
        type='CustomDataset',
        data_root=str(tmp_path),
        ann_file='list.txt',
        metainfo=dict(classes=CLASSES),
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )
    (tmp_path / 'list.txt').write_text('a.jpg 0\n')
    cfg.test_dataloader.dataset = dataset
    cfg.test_cfg.bank_dataloader.dataset = dataset
    with pytest.raises(ValueError, match='the bank has the label 0 .*a.jpg'):
        _ = Runner.from_cfg(cfg).test_loop
