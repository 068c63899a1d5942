# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import hashlib
import pickle
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from classification_data import write_voc
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10, CustomDataset
from mmpretrain.registry import DATASETS

from mmscfs.datasets.checks.classification import check_classification_data

CLASSES = ('cat', 'dog', 'owl')


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8, 3), 90, np.uint8))


@pytest.fixture
def root(tmp_path):
    """Two images of each of three classes, in train and in val."""
    for split in ('train', 'val'):
        for name in CLASSES:
            for i in range(2):
                write_image(tmp_path / split / name / f'{i}.jpg')
    return tmp_path


def dataset(root, split, **settings):
    return dict(
        type='CustomDataset',
        data_root=str(root),
        data_prefix=split,
        pipeline=[dict(type='NoSuchTransform')],
        **settings,
    )


@pytest.fixture
def cfg(root):
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(head=dict(num_classes=3)),
            train_dataloader=dict(dataset=dataset(root, 'train')),
            val_dataloader=dict(dataset=dataset(root, 'val')),
            val_cfg=dict(),
        )
    )


@pytest.fixture
def knn_cfg(cfg):
    """Pre-training on images without labels, with k-NN as validation."""
    cfg = copy.deepcopy(cfg)
    cfg.model = dict(head=dict(type='SCFSHead'))
    cfg.val_cfg = dict(
        type='KNNLoop', bank_dataloader=copy.deepcopy(cfg.train_dataloader)
    )
    cfg.train_dataloader.dataset.type = 'ImageFiles'
    return cfg


def refuse(cfg, *parts, error=ValueError, splits=('train', 'val')):
    """Check that a config is refused in words that hold the parts."""
    with pytest.raises(error) as caught:
        check_classification_data(cfg, splits)
    for part in parts:
        assert part in str(caught.value)


lack = partial(refuse, error=FileNotFoundError)


def write_list(root, name, lines):
    (root / name).write_text(''.join(f'{line}\n' for line in lines))


def test_good_configs_pass_and_stay_as_they_are(cfg, knn_cfg):
    for each in (cfg, knn_cfg):
        before = each.pretty_text
        check_classification_data(each)
        check_classification_data(each, ('test',))
        assert each.pretty_text == before


def test_other_scopes_and_data_sets_are_left_alone(cfg, root):
    cfg.default_scope = 'mmdet'
    cfg.train_dataloader.dataset.data_root = 'nowhere'
    check_classification_data(cfg)
    cfg.default_scope = 'mmpretrain'
    for kind in ('MNIST', 'NoSuchDataset'):
        cfg.train_dataloader.dataset.type = kind
        check_classification_data(cfg)
    cfg.train_dataloader.dataset.update(
        type='CustomDataset', data_root='s3://bucket'
    )
    check_classification_data(cfg)


@pytest.mark.parametrize(
    'settings',
    [
        dict(type='CUB', split='train'),
        dict(type='StanfordCars', split='train'),
        dict(type='FGVCAircraft', split='trainval'),
        dict(type='OxfordIIITPet', split='trainval'),
        dict(type='CIFAR100', split='train', download=False),
        dict(type='ImageNet', split='train'),
        dict(type='ImageNet', ann_file='meta/train_10percent.txt'),
        dict(type='VOC', split='trainval'),
        dict(type='CustomDataset'),
    ],
    ids=str,
)
def test_missing_data_name_setting_value_and_remedy(settings, cfg):
    cfg.train_dataloader.dataset = dict(settings, data_root='data/nowhere')
    where = "train_dataloader.dataset.data_root='data/nowhere'"
    lack(cfg, where, 'check_dataset.py --list', 'make_digit_scenes.py')


def test_bad_settings(cfg, root):
    cfg.train_dataloader.dataset.ann_file = 'meta/train.txt'
    lack(cfg, 'No such file', str(root / 'meta/train.txt'))
    cfg.train_dataloader.dataset = dict(
        type='CUB', data_root='data', split='val'
    )
    refuse(cfg, 'train_dataloader.dataset', 'split must be one of')
    cfg.train_dataloader.dataset = dict(
        type='CIFAR10', data_root='nowhere', split='test'
    )
    setting = 'train_dataloader.dataset.download must be False'
    refuse(cfg, setting, 'check_dataset.py')


def test_folders_without_images(cfg, root):
    for path in (root / 'val').rglob('*.jpg'):
        path.unlink()
    lack(cfg, 'no image in', str(root / 'val'))


def test_flat_imagenet_val_needs_a_list(cfg, root):
    write_image(root / 'flat/val/1.jpg')
    cfg.val_dataloader.dataset = dict(
        type='ImageNet', data_root=str(root / 'flat'), split='val'
    )
    words = ('0 class folders', 'instead of 1000')
    lack(cfg, *words, 'val_dataloader.dataset', 'a list, ann_file')


def test_images_of_a_list_must_exist_and_be_images(cfg, root):
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    write_list(root, 'list.txt', ['cat/0.jpg 0', 'dog/9.jpg 1', 'owl/0.jpg 2'])
    lack(cfg, 'train_dataloader.dataset', "train/dog/9.jpg'")
    (root / 'train/dog/9.jpg').write_text('no image')
    refuse(cfg, 'dog/9.jpg', 'damaged')


@pytest.mark.parametrize('kind', ['ImageFiles', 'CustomDataset'])
@pytest.mark.parametrize('where', ['val_dataloader', 'bank', 'train'])
def test_no_labels(kind, where, knn_cfg):
    if where == 'train':  # a classifier needs labels there, too
        knn_cfg.model = dict(head=dict(num_classes=3))
        loader, path = knn_cfg.train_dataloader, 'train_dataloader'
    elif where == 'bank':
        loader, path = knn_cfg.val_cfg.bank_dataloader, 'val_cfg.bank_'
    else:
        loader, path = knn_cfg.val_dataloader, 'val_dataloader'
    loader.dataset.type = kind
    if kind == 'CustomDataset':
        loader.dataset.with_label = False
    refuse(knn_cfg, path, kind, 'no labels')


@pytest.mark.parametrize(
    ('lines', 'problem'),
    [
        (['cat/0.jpg 0', 'dog/0.jpg -1'], 'label -1'),
        (['cat/0.jpg 0', 'dog/0.jpg'], 'cannot be read (ValueError: not en'),
        (['cat/0.jpg 0', 'dog/0.jpg two'], "'two'"),
    ],
)
def test_bad_labels_of_a_list(lines, problem, cfg, root):
    write_list(root, 'list.txt', lines)
    cfg.val_dataloader.dataset.ann_file = 'list.txt'
    refuse(cfg, 'val_dataloader.dataset', problem)


def test_number_of_classes(cfg, root):
    cfg.model.head.num_classes = 10
    words = 'model.head.num_classes=10, but train_dataloader.dataset has 3 cla'
    refuse(cfg, words, 'set model.head.num_classes=3')
    # A list does not tell how many there are, but the largest is known.
    write_list(root, 'list.txt', ['cat/0.jpg 0', 'dog/0.jpg 7'])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.ann_file = 'list.txt'
    check_classification_data(cfg)
    cfg.model.head.num_classes = 7
    refuse(cfg, 'model.head.num_classes=7', 'label 7')
    cfg.model.head.num_classes = 8
    check_classification_data(cfg)


def test_class_that_training_lacks_by_name(cfg, root):
    cfg.model.head.num_classes = 4
    for split in ('train', 'val'):
        (root / split / 'ant').mkdir()
    check_classification_data(cfg)  # no image of it anywhere
    write_image(root / 'val/ant/0.jpg')
    words = 'val_dataloader.dataset has classes without an image in train_'
    refuse(cfg, f"{words}dataloader.dataset: 'ant';")


def test_class_that_the_bank_lacks(knn_cfg, root):
    # The folders of val alone: with other names, so by name.
    write_image(root / 'val/yak/0.jpg')
    words = 'val_cfg.bank_dataloader.dataset have other classes'
    refuse(knn_cfg, 'val_dataloader', words, "'yak'")
    # Empty folders in the bank are classes without images, too.
    for name in ('yak', 'zebra'):
        (root / 'train' / name).mkdir()
    refuse(knn_cfg, 'without an image', "'yak'")
    knn_cfg.test_dataloader = knn_cfg.pop('val_dataloader')
    knn_cfg.test_cfg = knn_cfg.pop('val_cfg')
    refuse(knn_cfg, 'test_cfg.bank_dataloader.dataset', splits=('test',))


def test_class_that_training_lacks_by_label(cfg, root):
    write_list(root, 'train.txt', ['cat/0.jpg 0', 'owl/0.jpg 2'])
    write_list(root, 'val.txt', ['cat/0.jpg 0', 'dog/0.jpg 1'])
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.ann_file = f'{split}.txt'
    refuse(cfg, 'val_dataloader.dataset has classes without', 'dataset: 1;')
    for split in ('train', 'val'):  # with names that are the same
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=CLASSES)
    refuse(cfg, "'dog'")


def test_classes_of_a_part_of_the_images(cfg):
    # Images 0 and 1 are cats, 2 and 3 dogs.
    cfg.train_dataloader.dataset.indices = [0, 2, 4]
    check_classification_data(cfg)
    cfg.train_dataloader.dataset.indices = [0, 1, 2]
    refuse(cfg, "'owl'")


def test_same_names_under_other_labels(knn_cfg, root):
    """A val folder without cats would call owls dogs."""
    shutil.rmtree(root / 'val/cat')
    refuse(knn_cfg, 'number them differently', "'dog'")


def test_wrapped_and_joined_data_sets(cfg, root):
    inner = cfg.train_dataloader.dataset
    write_list(root, 'a.txt', ['cat/0.jpg 0', 'dog/0.jpg 1'])
    write_list(root, 'b.txt', ['owl/0.jpg 2'])
    parts = [dict(inner, ann_file=f'{name}.txt') for name in 'ab']
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ConcatDataset', datasets=parts),
    )
    check_classification_data(cfg)
    cfg.train_dataloader.dataset.dataset.datasets.pop()
    refuse(cfg, "train_dataloader.dataset.dataset.datasets[0]: 'owl';")
    (root / 'a.txt').unlink()
    lack(cfg, 'train_dataloader.dataset.dataset.datasets[0].data_root=')


def test_folders_are_not_read_whole(cfg, monkeypatch):
    def scan(self):
        raise AssertionError('scanned')

    # The check asks the class whether it finds its files as usual.
    monkeypatch.setattr(CustomDataset, '_find_samples', scan)
    check_classification_data(cfg)


def test_cifar_labels_are_read(cfg, tmp_path, monkeypatch):
    content = pickle.dumps(
        dict(data=np.zeros((3, 3072), np.uint8), labels=[0, 3, 9])
    )
    files = [['batch', hashlib.md5(content).hexdigest()]]
    kind = type('Cifar', (CIFAR10,), dict(train_list=files, test_list=files))
    monkeypatch.setitem(DATASETS.module_dict, 'Cifar', kind)
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    (folder / 'batch').write_bytes(content)
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].dataset = dict(
            type='Cifar', data_root=str(tmp_path), download=False
        )
    refuse(cfg, 'model.head.num_classes=3', '10 classes', "'airplane'")
    cfg.model.head.num_classes = 10
    check_classification_data(cfg)
    (folder / 'batch').write_bytes(content[:-1])
    lack(cfg, 'Cannot find Cifar dataset in', 'put the data set there')


# Several labels an image


@pytest.fixture
def voc_cfg(root):
    """SVMs on VOC: cats and dogs, an image of a dog is "difficult"."""
    write_voc(
        root,
        'trainval',
        {'a': (['cat'], []), 'b': (['dog', 'cat'], []), 'c': ([], [])},
    )
    write_voc(root, 'test', {'d': (['cat'], ['dog']), 'e': (['dog'], [])})
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(backbone=dict()),
            test_dataloader=dict(
                dataset=dict(type='VOC', data_root=str(root), split='test')
            ),
            test_cfg=dict(
                bank_dataloader=dict(
                    dataset=dict(
                        type='VOC', data_root=str(root), split='trainval'
                    )
                )
            ),
        )
    )


def test_voc_passes(voc_cfg):
    check_classification_data(voc_cfg, ('test',))


def test_voc_without_its_parts(voc_cfg, root):
    bank = 'test_cfg.bank_dataloader.dataset'
    (root / 'Annotations/b.xml').write_text('<annotation><object>')
    refuse(voc_cfg, f'{bank} cannot be read (ParseError', splits=['test'])
    for name in ('Annotations/b.xml', 'ImageSets/Main/trainval.txt'):
        (root / name).unlink()
        lack(voc_cfg, f'{bank}.data_root=', name, splits=['test'])


def test_a_class_of_voc_that_is_never_learned(voc_cfg, root):
    """Only "difficult" is not learned."""
    write_voc(root, 'trainval', {'a': (['cat'], []), 'b': (['cat'], ['dog'])})
    refuse(
        voc_cfg,
        'test_dataloader.dataset has classes without an image in '
        "test_cfg.bank_dataloader.dataset: 'dog'",
        splits=('test',),
    )
