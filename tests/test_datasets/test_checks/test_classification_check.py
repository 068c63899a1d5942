# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from classification_data import register_cifar, write_voc
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from mmscfs.datasets.checks.classification import check_classification_data

CLASSES = ('cat', 'dog', 'owl')
TRAIN = 'train_dataloader.dataset'
VAL = 'val_dataloader.dataset'
BANK = 'val_cfg.bank_dataloader.dataset'


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


@pytest.fixture
def cfg(root):
    """A classifier."""
    train, val = (
        dict(
            type='CustomDataset',
            data_root=str(root),
            data_prefix=split,
            pipeline=[dict(type='NoSuchTransform')],
        )
        for split in ('train', 'val')
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(head=dict(num_classes=3)),
            train_dataloader=dict(dataset=train),
            val_dataloader=dict(dataset=val),
            val_cfg=dict(),
        )
    )


@pytest.fixture
def knn_cfg(cfg):
    """Pre-training on images without labels, with k-NN as validation."""
    cfg = copy.deepcopy(cfg)
    cfg.model = dict(head=dict(type='SCFSHead'))
    bank = copy.deepcopy(cfg.train_dataloader)
    cfg.val_cfg = dict(type='KNNLoop', bank_dataloader=bank)
    cfg.train_dataloader.dataset.type = 'ImageFiles'
    return cfg


def refuse(cfg, *parts, error=ValueError, splits=('train', 'val')):
    """Check that a config is refused in words that hold the parts."""
    with pytest.raises(error) as caught:
        check_classification_data(cfg, splits)
    for part in parts:
        assert part in str(caught.value)


lack = partial(refuse, error=FileNotFoundError)


def use_list(cfg, root, loader, *lines):
    """Let a loader read a list of files."""
    name = f'{loader}.txt'
    (root / name).write_text(''.join(f'{line}\n' for line in lines))
    cfg[f'{loader}_dataloader'].dataset.ann_file = name


def test_good_configs_pass_and_stay_as_they_are(cfg, knn_cfg):
    for each in (cfg, knn_cfg):
        before = each.pretty_text
        check_classification_data(each)
        check_classification_data(each, ('test',))
        assert each.pretty_text == before


def test_other_scopes_and_data_sets_are_left_alone(cfg):
    cfg.default_scope = 'mmdet'
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = 'nowhere'
    check_classification_data(cfg)
    cfg.default_scope = 'mmpretrain'
    for kind in ('MNIST', 'NoSuchDataset'):
        dataset.type = kind
        check_classification_data(cfg)
    dataset.update(type='CustomDataset', data_root='s3://bucket')
    check_classification_data(cfg)


@pytest.mark.parametrize(
    'settings',
    [
        dict(type='CUB', split='train'),
        dict(type='CIFAR100', split='train', download=False),
        dict(type='ImageNet', ann_file='meta/train_10percent.txt'),
        dict(type='VOC', split='trainval'),
        dict(type='CustomDataset'),
    ],
    ids=str,
)
def test_missing_data_name_setting_value_and_remedy(settings, cfg):
    cfg.train_dataloader.dataset = dict(settings, data_root='data/nowhere')
    where = f"{TRAIN}.data_root='data/nowhere'"
    lack(cfg, where, 'check_dataset.py --list', 'make_digit_scenes.py')


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(type='CUB', split='val'), 'split must be one of'),
        (dict(type='CIFAR10', split='test'), '.download must be False'),
        (dict(type='CustomDataset', with_label=False), 'has no labels'),
        (dict(type='ImageFiles'), 'has no labels'),
    ],
)
@pytest.mark.parametrize('where', [TRAIN, VAL, BANK])
def test_bad_settings(settings, words, where, cfg, knn_cfg, root):
    cfg = knn_cfg if where == BANK else cfg
    *loader, _ = where.split('.')
    part = cfg
    for key in loader:
        part = part[key]
    part.dataset = dict(settings, data_root=str(root))
    refuse(cfg, where, words)


def test_flat_imagenet_val_needs_a_list(cfg, root):
    write_image(root / 'flat/val/1.jpg')
    flat = dict(type='ImageNet', data_root=str(root / 'flat'), split='val')
    cfg.val_dataloader.dataset = flat
    words = ('0 class folders', 'instead of 1000', 'a list, ann_file')
    lack(cfg, VAL, *words)


def test_images_of_a_list_must_exist_and_be_images(cfg, root):
    lines = ['cat/0.jpg 0', 'dog/9.jpg 1', 'owl/0.jpg 2']
    use_list(cfg, root, 'train', *lines)
    lack(cfg, TRAIN, "train/dog/9.jpg'")
    (root / 'train/dog/9.jpg').write_text('no image')
    refuse(cfg, 'dog/9.jpg', 'damaged')


@pytest.mark.parametrize(
    'name',
    # The third begins as the folder does.
    ['/etc/passwd', '../a.jpg', '{}/val_private/0.jpg', 'http://host/b.jpg'],
)
def test_names_of_a_list_stay_in_its_folder(cfg, root, name):
    write_image(root / 'val_private/0.jpg')
    name = name.format(root)
    # Not among the images that are opened.
    lines = [f'cat/0.jpg {i % 3}' for i in range(100)]
    use_list(cfg, root, 'val', lines[0], f'{name} 1', *lines[1:])
    refuse(cfg, 'not a path below', name)


def test_whole_paths_in_a_list(cfg, root):
    """Below the folder, or without one; an address neither way."""
    lines = [f'{root}/val/cat/0.jpg {i % 3}' for i in range(100)]
    use_list(cfg, root, 'val', *lines)
    dataset = cfg.val_dataloader.dataset
    for prefix in ('val', 'val/'):
        dataset.data_prefix = prefix
        check_classification_data(cfg)
    dataset.update(data_root='', data_prefix='')
    dataset.ann_file = str(root / 'val.txt')
    check_classification_data(cfg)
    text = '\n'.join([lines[0], 'http://127.0.0.1:9/b.jpg 1', *lines[1:]])
    (root / 'val.txt').write_text(text)
    refuse(cfg, 'not a path below', 'http://127.0.0.1:9/b.jpg')


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        ('dog/0.jpg -1', 'label -1'),
        ('dog/0.jpg', 'cannot be read (ValueError: not enough'),
        ('dog/0.jpg two', "'two'"),
    ],
)
def test_bad_labels_of_a_list(line, problem, cfg, root):
    use_list(cfg, root, 'val', 'cat/0.jpg 0', line)
    refuse(cfg, VAL, problem)


def test_number_of_classes(cfg, root):
    cfg.model.head.num_classes = 10
    words = f'model.head.num_classes=10, but {TRAIN} has 3 classes'
    refuse(cfg, words, 'set model.head.num_classes=3')
    # A list does not tell how many there are, but the largest is known.
    for loader in ('train', 'val'):
        use_list(cfg, root, loader, 'cat/0.jpg 0', 'dog/0.jpg 7')
    check_classification_data(cfg)
    cfg.model.head.num_classes = 7
    refuse(cfg, 'model.head.num_classes', 'label 7', 'from 0 to 6')
    cfg.model.head.num_classes = 8
    check_classification_data(cfg)


def test_class_that_training_lacks_by_name(cfg, root):
    cfg.model.head.num_classes = 4
    for split in ('train', 'val'):
        (root / split / 'ant').mkdir()
    check_classification_data(cfg)  # no image of it anywhere
    write_image(root / 'val/ant/0.jpg')
    refuse(cfg, f"{VAL} has classes without an image in {TRAIN}: 'ant';")


def test_class_that_the_bank_lacks(knn_cfg, root):
    # The folders of val alone: with other names, so by name.
    write_image(root / 'val/yak/0.jpg')
    refuse(knn_cfg, f'{VAL} and {BANK} have other classes', "'yak'")
    # Empty folders in the bank are classes without images, too.
    for name in ('yak', 'zebra'):
        (root / 'train' / name).mkdir()
    refuse(knn_cfg, 'without an image', "'yak'")
    knn_cfg.test_dataloader = knn_cfg.pop('val_dataloader')
    knn_cfg.test_cfg = knn_cfg.pop('val_cfg')
    refuse(knn_cfg, 'test_cfg.bank_dataloader.dataset', splits=('test',))


def test_class_that_training_lacks_by_label(cfg, root):
    use_list(cfg, root, 'train', 'cat/0.jpg 0', 'owl/0.jpg 2')
    use_list(cfg, root, 'val', 'cat/0.jpg 0', 'dog/0.jpg 1')
    refuse(cfg, f'{VAL} has classes without', 'dataset: 1;')
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
    use_list(cfg, root, 'train', 'cat/0.jpg 0', 'dog/0.jpg 1')
    (root / 'b.txt').write_text('owl/0.jpg 2')
    parts = [dict(inner), dict(inner, ann_file='b.txt')]
    joined = dict(type='ConcatDataset', datasets=parts)
    repeated = dict(type='RepeatDataset', times=2, dataset=joined)
    cfg.train_dataloader.dataset = repeated
    check_classification_data(cfg)
    cfg.train_dataloader.dataset.dataset.datasets.pop()
    refuse(cfg, f"{TRAIN}.dataset.datasets[0]: 'owl';")
    (root / 'train.txt').unlink()
    lack(cfg, f'{TRAIN}.dataset.datasets[0].data_root=')


def test_folders_are_not_read_whole(cfg, monkeypatch):
    def scan(self):
        raise AssertionError('scanned')

    # The check asks the class whether it finds its files as usual.
    monkeypatch.setattr(CustomDataset, '_find_samples', scan)
    check_classification_data(cfg)


def test_cifar_labels_are_read(cfg, tmp_path, monkeypatch):
    file = register_cifar(monkeypatch, tmp_path, [0, 3, 9])
    settings = dict(type='Cifar', data_root=str(tmp_path), download=False)
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].dataset = settings
    refuse(cfg, 'model.head.num_classes=3', '10 classes', "'airplane'")
    cfg.model.head.num_classes = 10
    check_classification_data(cfg)
    file.write_bytes(b'spoiled')
    lack(cfg, 'Cannot find Cifar dataset in', 'put the data set there')


# Several labels an image


@pytest.fixture
def voc_cfg(root):
    """SVMs on VOC: cats and dogs, an image of a dog is "difficult"."""
    images = {'a': (['cat'], []), 'b': (['dog', 'cat'], []), 'c': ([], [])}
    write_voc(root, 'trainval', images)
    write_voc(root, 'test', {'d': (['cat'], ['dog']), 'e': (['dog'], [])})
    test, bank = (
        dict(dataset=dict(type='VOC', data_root=str(root), split=split))
        for split in ('test', 'trainval')
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(backbone=dict()),
            test_dataloader=test,
            test_cfg=dict(bank_dataloader=bank),
        )
    )


def test_voc(voc_cfg, root):
    check_classification_data(voc_cfg, ['test'])
    bank = 'test_cfg.bank_dataloader.dataset'
    (root / 'Annotations/b.xml').write_text('<annotation><object>')
    refuse(voc_cfg, f'{bank} cannot be read (ParseError', splits=['test'])
    for name in ('Annotations/b.xml', 'ImageSets/Main/trainval.txt'):
        (root / name).unlink()
        lack(voc_cfg, f'{bank}.data_root=', name, splits=['test'])


def test_a_class_of_voc_that_is_never_learned(voc_cfg, root):
    """Only "difficult" is not learned."""
    write_voc(root, 'trainval', {'a': (['cat'], []), 'b': (['cat'], ['dog'])})
    words = "test_cfg.bank_dataloader.dataset: 'dog'"
    refuse(voc_cfg, 'without an image in', words, splits=['test'])
