# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import hashlib
import json
from functools import partial
from pathlib import Path

import mat4py
import pytest
from classification_data import MAKERS
from mmengine.config import Config, ConfigDict
from mmpretrain.datasets import CIFAR10, CustomDataset
from mmpretrain.registry import DATASETS

from mmscfs.datasets.checks.published import (
    Split,
    SplitReport,
    check_split,
    find_dataset,
    known_datasets,
    problems,
)

CONFIGS = Path(__file__).parents[3] / 'configs/_base_/datasets'
BASES = {
    'in1k': 'imagenet_bs32_cls',
    'in100': 'imagenet100_bs32_cls',
    'coco': 'coco_instance_ms',
    'voc0712': 'voc0712_ms',
    'cifar10': 'cifar10_bs256_cls',
    'cifar100': 'cifar100_bs256_cls',
    'cub200': 'cub200_bs256_cls',
    'cars': 'cars_bs256_cls',
    'aircraft': 'aircraft_bs256_cls',
    'pets': 'pets_bs256_cls',
}
NAMES = [dataset.name for dataset in known_datasets()]


def write(path, content='x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def look(root, reader, **settings):
    return check_split(Split('s', None, 0, reader, settings), root)


@pytest.mark.parametrize('name', BASES)
def test_roots_are_those_of_the_configs(name):
    cfg = Config.fromfile(CONFIGS / f'{BASES[name]}.py')
    train = cfg.train_dataloader.dataset
    for dataset in train.get('datasets', [train]):
        assert Path(dataset.data_root) == Path(find_dataset(name).root)


def test_totals_are_consistent():
    """The classes are those of mmpretrain, and CIFAR's files add up."""
    assert len(NAMES) == len(set(NAMES)) == 13
    for dataset in known_datasets():
        for split in dataset.splits:
            settings = split.settings
            if 'kind' in settings:
                kind = DATASETS.get(settings['kind'])
                assert split.classes == len(kind.METAINFO['classes'])
            if split.reader == 'cifar':
                is_train = settings['split'] == 'train'
                files = kind.train_list if is_train else kind.test_list
                count = settings['images_per_file'] * len(files)
                assert split.images == count


@pytest.mark.parametrize('name', NAMES)
def test_an_empty_folder_is_incomplete_in_every_split(name, tmp_path):
    for split in find_dataset(name).splits:
        report = check_split(split, tmp_path)
        assert report.images == 0
        assert report.missing
        assert problems(split, report)


def test_unknown_name_names_the_known_ones():
    with pytest.raises(ValueError, match="'cub': choose one of in1k,"):
        find_dataset('cub')


@pytest.fixture
def imagenet(tmp_path):
    """Three classes with 4 images each in train and 2 in val."""
    for split, count in (('train', 4), ('val', 2)):
        for name in ('n01440764', 'n01443537', 'n01484850'):
            for i in range(count):
                write(tmp_path / split / name / f'{name}_{i}.JPEG')
    return tmp_path


def folders(root, split='train'):
    return look(root, 'imagenet', split=split)


def test_folders_count_what_mmpretrain_finds(imagenet):
    write(imagenet / 'train/n01440764/deeper/one.PNG')
    write(imagenet / 'elsewhere/two.jpg')
    (imagenet / 'train/n01443537/linked').symlink_to(imagenet / 'elsewhere')
    write(imagenet / 'train/n01440764/notes.txt')
    write(imagenet / 'train/n01440764/._n01440764_0.JPEG')
    report = folders(imagenet)
    theirs = CustomDataset(data_root=str(imagenet), data_prefix='train')
    assert report.images == len(theirs) == 14
    assert set(report.per_class) == set(theirs.CLASSES)
    assert not problems(Split('train', 14, 3, '', {}, (4, 5)), report)


def test_folders_name_damaged_files_and_short_classes(imagenet):
    write(imagenet / 'train/n01443537/n01443537_2.JPEG', '')
    (imagenet / 'train/n01484850/n01484850_0.JPEG').unlink()
    report = folders(imagenet)
    assert report.images == 10
    assert report.damaged == ['train/n01443537/n01443537_2.JPEG']
    assert problems(Split('train', 12, 3, '', {}, (4, 4)), report) == [
        '10 images instead of 12',
        'empty or damaged (1): train/n01443537/n01443537_2.JPEG',
        'classes with other than 4 images (2): n01443537 (3), n01484850 (3)',
    ]


def test_folders_name_classes_without_images(imagenet):
    """Of the other split, and of the subset's list."""
    for path in (imagenet / 'val/n01443537').iterdir():
        path.unlink()
    (imagenet / 'val/n01443537').rmdir()
    report = folders(imagenet, 'val')
    assert 'classes without images (1): n01443537' in problems(
        Split('val', 6, 3, '', {}), report
    )
    write(imagenet / 'meta/classes.txt', 'n01440764\nn01491361\n')
    assert folders(imagenet).missing_classes == ['n01491361']


def test_a_flat_val_is_told_from_an_empty_one(tmp_path):
    write(tmp_path / 'val/ILSVRC2012_val_00000001.JPEG')
    report = folders(tmp_path, 'val')
    assert 'list them in meta/val.txt' in report.notes[0]


def listed(root, lines):
    write(root / 'meta/list.txt', ''.join(f'{line}\n' for line in lines))
    return look(
        root, 'list', split='train', ann_file='meta/list.txt', num_classes=3
    )


FILES = [
    f'n0144000{c}/n0144000{c}_{i}.JPEG' for c in range(3) for i in range(2)
]


def test_list_counts_files_that_are_there(tmp_path):
    for name in FILES[1:]:
        write(tmp_path / 'train' / name)
    write(tmp_path / 'train' / FILES[5], '')
    lines = [f'{name} {i // 2}' for i, name in enumerate(FILES)]
    report = listed(tmp_path, lines)
    assert report.per_class == dict(n01440000=1, n01440001=2, n01440002=1)
    assert report.missing == [f'train/{FILES[0]}']
    assert report.damaged == [f'train/{FILES[5]}']
    assert not report.notes
    (tmp_path / 'train' / FILES[4]).unlink()
    assert listed(tmp_path, lines).missing_classes == ['n01440002']
    # In ImageNet's val only the label tells the class.
    for i in range(3):
        write(tmp_path / f'train/ILSVRC2012_val_{i}.JPEG')
    lines = [f'ILSVRC2012_val_{i}.JPEG {7 * i}' for i in range(3)]
    report = listed(tmp_path, lines)
    assert report.per_class == {'0': 1, '7': 1, '14': 1}
    assert not report.notes


@pytest.mark.parametrize(
    ('lines', 'note'),
    [
        (['a.JPEG 0', 'b.JPEG'], 'line 2 of meta/list.txt'),
        (['a.JPEG ²'], 'line 1 of meta/list.txt'),
        (['a.JPEG 0', 'a.JPEG 0'], 'names files twice (1)'),
        (
            [f'{name} {(3 - i // 2) % 3}' for i, name in enumerate(FILES)],
            '(2): n01440001, n01440002',
        ),
    ],
)
def test_wrong_lists_are_explained(lines, note, tmp_path):
    assert note in ''.join(listed(tmp_path, lines).notes)


def make_cars(root, dataset):
    """The other layout: a folder and a file for each split."""
    end = {'train': 'annos', 'test': 'annos_withlabels'}[dataset.split]
    files = [f'0000{i}.jpg' for i in range(8)]
    for file in files:
        write(root / f'cars_{dataset.split}' / file)
    (root / 'devkit').mkdir(exist_ok=True)
    mat4py.savemat(
        str(root / f'devkit/cars_{dataset.split}_{end}.mat'),
        {'annotations': {'fname': files, 'class': [1] * 4 + [2] * 4}},
    )


@pytest.mark.parametrize(
    ('name', 'kind', 'make', 'annotations'),
    [
        ('cub200', 'CUB', None, 'images.txt'),
        ('cars', 'StanfordCars', make_cars, 'devkit/cars_train_annos.mat'),
        ('cars', 'StanfordCars', None, 'cars_annos.mat'),
        ('aircraft', 'FGVCAircraft', None, 'data/images_variant_trainval.txt'),
        ('pets', 'OxfordIIITPet', None, 'annotations/trainval.txt'),
    ],
)
def test_annotated_sets(name, kind, make, annotations, tmp_path):
    """Four images of each of two classes in a split."""
    train, test = find_dataset(name).splits
    for split in (train, test):
        (make or MAKERS[kind])(tmp_path, ConfigDict(split=split.name))
    kind = DATASETS.get(kind)
    names = kind.METAINFO['classes']
    report = check_split(train, tmp_path)
    assert report.per_class == {names[0]: 4, names[1]: 4}
    assert report.missing + report.damaged + report.notes == []
    assert check_split(test, tmp_path).images == report.images == 8

    dataset = kind(data_root=str(tmp_path), split=train.name)
    seconds = [image for image in dataset if image['gt_label'] == 1]
    paths = [Path(image['img_path']) for image in seconds]
    paths[0].write_text('')
    for path in paths[1:]:
        path.unlink()
    report = check_split(train, tmp_path)
    assert report.images == 4
    files = [str(path.relative_to(tmp_path)) for path in paths]
    assert report.damaged == files[:1]
    assert report.missing == files[1:]
    assert report.missing_classes == sorted(set(names) - {names[0]})

    write(tmp_path / annotations, 'no such thing at all')
    report = check_split(train, tmp_path)
    assert annotations in report.damaged
    assert 'mmpretrain cannot read the annotations' in report.notes[0]
    (tmp_path / annotations).unlink()
    needed = train.settings['needed']  # of the two layouts, the first
    assert check_split(train, tmp_path).missing[0] == needed[0]


def test_cifar_goes_by_checksums(tmp_path, monkeypatch):
    md5 = hashlib.md5(b'pixels').hexdigest()

    class Cifar(CIFAR10):
        train_list = [[f'data_batch_{i}', md5] for i in range(1, 6)]

    monkeypatch.setitem(DATASETS.module_dict, 'Cifar', Cifar)
    folder = tmp_path / 'cifar-10-batches-py'
    for i in (1, 2, 3, 4):
        write(folder / f'data_batch_{i}', 'pixels')
    write(folder / 'data_batch_3', 'Pixels')
    report = look(
        tmp_path, 'cifar', kind='Cifar', split='train', images_per_file=10000
    )
    assert report.images == 30000
    assert len(report.per_class) == 10
    assert report.missing == ['cifar-10-batches-py/data_batch_5']
    assert report.damaged == ['cifar-10-batches-py/data_batch_3']


def test_coco(tmp_path):
    content = {
        'images': [
            dict(id=i, file_name=f'{i}.jpg', width=9, height=9)
            for i in range(3)
        ],
        'categories': [dict(id=1, name='cat'), dict(id=2, name='dog')],
    }
    write(tmp_path / 'train2017/0.jpg')
    write(tmp_path / 'train2017/2.jpg')
    write(tmp_path / 'boxes.json', json.dumps(content))
    reader = partial(
        look, tmp_path, 'coco', ann_file='boxes.json', folder='train2017'
    )
    report = reader()
    assert (report.images, set(report.per_class)) == (2, {'cat', 'dog'})
    assert report.missing == ['train2017/1.jpg']
    write(tmp_path / 'boxes.json', json.dumps(content)[:-9])
    assert reader().damaged == ['boxes.json']
    for name in ('../boxes.json', 7):
        content['images'][1]['file_name'] = name
        write(tmp_path / 'boxes.json', json.dumps(content))
        report = reader()
        assert report.damaged == ['boxes.json']
        assert repr(name) in report.notes[0]


def test_voc_needs_image_and_annotation(tmp_path):
    root = tmp_path / 'VOC2007'
    xml = '<annotation><object><name>{}</name></object></annotation>'
    write(root / 'ImageSets/Main/trainval.txt', '1\n2\n3\n4\n../../x\n')
    for i, name in ((1, 'cat'), (2, 'dog'), (3, 'owl')):
        write(root / f'JPEGImages/{i}.jpg')
        write(root / f'Annotations/{i}.xml', xml.format(name))
    (root / 'JPEGImages/2.jpg').unlink()
    write(root / 'Annotations/3.xml', '<annotation>')
    report = look(tmp_path, 'voc', year='VOC2007', listing='trainval')
    assert (report.images, set(report.per_class)) == (1, {'cat'})
    assert report.missing == [
        'VOC2007/JPEGImages/2.jpg',
        'VOC2007/Annotations/4.xml',
    ]
    assert 'Annotations/3.xml: damaged' in report.notes[0]
    assert "'../../x'" in report.notes[1]


def test_problems_give_the_first_names_and_the_number():
    report = SplitReport(Path('.'), images=1234)
    report.per_class['a'] = 1
    report.missing = [f'{i}' for i in range(1000, 3000)]
    split = Split('train', 3234, 1, '', {})
    assert problems(split, report) == [
        '1,234 images instead of 3,234',
        'missing (2,000): 1000, 1001, 1002, 1003, 1004, ...',
    ]
    report.missing, report.images = [], 3234
    assert problems(split, report) == []
    report.images = 3235
    assert problems(split, report) == ['3,235 images instead of 3,234']
    assert problems(split._replace(images=None), report) == []
