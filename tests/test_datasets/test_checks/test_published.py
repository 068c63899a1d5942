# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
from pathlib import Path

import pytest
from classification_data import MAKERS
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import DATASETS

from mmscfs.datasets.checks.published import check_published, known_datasets

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
NAMES = list(known_datasets())


def write(path, content='x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def look(root, kind='ImageNet', classes=3, images=None, **splits):
    """Check a data set of these splits; return their reports."""
    dataset = dict(type=kind)
    if kind == 'ImageNet':
        dataset['metainfo'] = dict(classes=None)
    splits = {s: dict(images=images) | v for s, v in splits.items()}
    known = dict(classes=classes, dataset=dataset, splits=splits)
    reports = check_published(known, root)
    return reports[0] if len(reports) == 1 else reports


@pytest.mark.parametrize('name', BASES)
def test_roots_are_those_of_the_configs(name):
    cfg = Config.fromfile(CONFIGS / f'{BASES[name]}.py')
    train = cfg.train_dataloader.dataset
    for dataset in train.get('datasets', [train]):
        root = known_datasets()[name]['root']
        assert Path(dataset.data_root) == Path(root)


@pytest.mark.parametrize('name', NAMES)
def test_an_empty_folder_is_incomplete_in_every_split(name, tmp_path):
    known = known_datasets()[name]
    kind = DATASETS.get(known['dataset']['type'])
    if kind is not None and kind.METAINFO and name[:3] not in ('in1', 'voc'):
        assert known['classes'] == len(kind.METAINFO['classes'])
    reports = check_published(known, tmp_path)
    assert [report.name for report in reports] == [*known['splits']]
    for report in reports:
        assert report.images == 0
        assert report.missing or 'cannot be listed' in report.notes[0]
        assert report.problems()


@pytest.fixture
def imagenet(tmp_path):
    """Three classes with 4 images each in train and 2 in val."""
    for split, count in (('train', 4), ('val', 2)):
        for name in ('n01440764', 'n01443537', 'n01484850'):
            for i in range(count):
                write(tmp_path / split / name / f'{name}_{i}.JPEG')
    return tmp_path


def test_folders_name_damaged_files_and_short_classes(imagenet):
    write(imagenet / 'train/n01443537/n01443537_2.JPEG', '')
    (imagenet / 'train/n01484850/n01484850_0.JPEG').unlink()
    report = look(imagenet, images=12, train=dict(per_class=(4, 4)))
    assert report.problems() == [
        '10 images instead of 12',
        'empty or damaged (1): train/n01443537/n01443537_2.JPEG',
        'classes of fewer than 4 or more than 4 images (2): n01443537 (3), '
        'n01484850 (3)',
    ]


def test_classes_that_the_other_split_has(imagenet):
    for path in (imagenet / 'val/n01443537').iterdir():
        path.unlink()
    (imagenet / 'val/n01443537').rmdir()
    train, val = look(imagenet, train={}, val={})
    assert not train.problems()
    assert val.problems() == [
        '2 classes instead of 3',
        'classes without images (1): n01443537',
    ]


def test_a_flat_val_needs_its_list(imagenet):
    for path in (imagenet / 'val').glob('*/*'):
        path.rename(imagenet / 'val' / path.name)
        if not list(path.parent.iterdir()):
            path.parent.rmdir()
    (note,) = look(imagenet, val={}).notes
    assert 'Found 0 files in subfolders' in note
    names = sorted(path.name for path in (imagenet / 'val').iterdir())
    lines = [f'{name} {7 * (i // 2)}\n' for i, name in enumerate(names)]
    write(imagenet / 'meta/val.txt', ''.join(lines))
    # In this list only the label tells the class.
    train, val = look(imagenet, train={}, val={})
    assert val.counts == {'0': 2, '7': 2, '14': 2}
    assert not train.problems() + val.problems()


FILES = [
    f'n0144000{c}/n0144000{c}_{i}.JPEG' for c in range(3) for i in range(2)
]


def listed(root, lines):
    write(root / 'meta/list.txt', ''.join(f'{line}\n' for line in lines))
    settings = dict(split='train', ann_file='meta/list.txt')
    return look(root, images=6, part=settings)


def test_list_counts_files_that_are_there(tmp_path):
    for name in FILES[1:5]:
        write(tmp_path / 'train' / name)
    write(tmp_path / 'train' / FILES[5], '')
    lines = [f'{name} {i // 2}' for i, name in enumerate(FILES)]
    report = listed(tmp_path, lines)
    assert report.counts == dict(n01440000=1, n01440001=2, n01440002=1)
    assert report.missing == [f'train/{FILES[0]}']
    assert report.damaged == [f'train/{FILES[5]}']
    assert not report.notes


@pytest.mark.parametrize(
    ('lines', 'note'),
    [
        (['a.JPEG 0', 'b.JPEG'], 'cannot be listed (ValueError): not enough'),
        (['a.JPEG two'], "'two'"),
        (['a.JPEG 0', 'a.JPEG 0'], 'listed twice (1)'),
    ],
)
def test_wrong_lists_are_explained(lines, note, tmp_path):
    assert note in ''.join(listed(tmp_path, lines).notes)


def test_annotated_sets(tmp_path):
    """Four images of each of two classes in a split."""
    known = known_datasets()['pets']
    for split in known['splits']:
        MAKERS['OxfordIIITPet'](tmp_path, ConfigDict(split=split))
    names = DATASETS.get('OxfordIIITPet').METAINFO['classes']
    train, test = check_published(known, tmp_path)
    assert train.counts == test.counts == {names[0]: 4, names[1]: 4}
    assert train.missing + train.damaged + train.notes == []
    files = [f'images/cat_trainval_{i}.jpg' for i in range(4, 8)]
    (tmp_path / files[0]).write_text('')
    for file in files[1:]:
        (tmp_path / file).unlink()
    train, test = check_published(known, tmp_path)
    assert (train.images, test.images) == (4, 8)
    assert train.damaged == files[:1]
    assert train.missing == files[1:]
    assert train.absent == [names[1]]
    write(tmp_path / 'annotations/trainval.txt', 'no such thing at all')
    train, _ = check_published(known, tmp_path)
    assert 'cannot be listed' in train.notes[0]


def test_coco(tmp_path):
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=9, height=9) for i in range(3)
    ]
    boxes = [
        dict(id=i, image_id=i, category_id=1 + i % 2, bbox=[1, 1, 2, 2])
        | dict(area=4)
        for i in range(3)
    ]
    names = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content = dict(images=images, annotations=boxes, categories=names)
    file = tmp_path / 'annotations/instances_train2017.json'
    for i in (0, 1):
        write(tmp_path / f'train2017/{i}.jpg')
    write(file, json.dumps(content))
    report = look(tmp_path, 'COCO', 2, train2017={})
    assert report.counts == dict(cat=1, dog=1)
    assert report.problems() == ['missing (1): train2017/2.jpg']
    for text in (json.dumps(content)[:-9], '{"images": [{"id": 7}]}'):
        write(file, text)
        report = look(tmp_path, 'COCO', 2, train2017={})
        assert str(file) in report.notes[0]
    file.unlink()
    report = look(tmp_path, 'COCO', 2, train2017={})
    assert report.missing == ['annotations/instances_train2017.json']


def test_voc_needs_image_and_annotation(tmp_path):
    root = tmp_path / 'VOC2007'
    xml = '<annotation><object><name>{}</name></object></annotation>'
    listing = root / 'ImageSets/Main/trainval.txt'
    write(listing, '1\n2\n3\n4\n')
    for i, name in ((1, 'cat'), (2, 'dog'), (3, 'owl')):
        write(root / f'JPEGImages/{i}.jpg')
        write(root / f'Annotations/{i}.xml', xml.format(name))
    (root / 'JPEGImages/2.jpg').unlink()
    write(root / 'Annotations/3.xml', '<annotation>')
    splits = dict(all=dict(split='VOC2007/trainval'))
    report = look(tmp_path, 'VOC', **splits)
    assert report.counts == dict(cat=1)
    assert report.missing == [
        'VOC2007/Annotations/4.xml',
        'VOC2007/JPEGImages/2.jpg',
    ]
    assert 'Annotations/3.xml: damaged' in report.notes[0]
    write(listing, '1\n../../x\n')
    assert "'../../x'" in look(tmp_path, 'VOC', **splits).notes[0]
