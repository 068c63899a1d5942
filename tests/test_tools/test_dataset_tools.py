# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of check_dataset, make_semi_supervised_list, make_imagenet_subset."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import load_tool
from mmpretrain.datasets import CustomDataset, ImageNet, OxfordIIITPet
from mmpretrain.registry import DATASETS
from PIL import Image

from mmscfs.datasets.checks import published
from mmscfs.datasets.checks.published import known_datasets

checker = load_tool('dataset_converters/check_dataset')
lister = load_tool('dataset_converters/make_semi_supervised_list')
subsetter = load_tool('dataset_converters/make_imagenet_subset')

# In this order in train; their labels are 1, 2, 0.
SYNSETS = ('n01443537', 'n01484850', 'n01440764')


def write(path, content='x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def imagenet(tmp_path):
    """Three classes, 3 images each in train and 2 in val's class folders."""
    root = tmp_path / 'imagenet'
    for name in SYNSETS:
        for i in range(3):
            write(root / f'train/{name}/{name}_{i}.JPEG', f'{name} {i}')
        for i in range(2):
            write(root / f'val/{name}/{name[-4:]}{i}.JPEG', f'{name} val {i}')
    return root


@pytest.fixture
def flat_imagenet(imagenet, monkeypatch):
    """The same with all images of val in one folder, and a list."""
    monkeypatch.setattr(subsetter, 'NUM_CLASSES', 3)
    lines = []
    for label, name in enumerate(sorted(SYNSETS)):
        for path in sorted((imagenet / 'val' / name).iterdir()):
            path.rename(imagenet / 'val' / path.name)
            lines.append(f'{path.name} {label}\n')
        (imagenet / 'val' / name).rmdir()
    write(imagenet / 'meta/val.txt', ''.join(lines[::-1]))
    return imagenet


def tree(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


# check_dataset.py


NAMES = OxfordIIITPet.METAINFO['classes'][:2]


@pytest.fixture
def small_pets(tmp_path, monkeypatch):
    """Two pets in each split, and totals to match."""
    root = tmp_path / 'pets'
    for i, split in enumerate(('trainval', 'test'), 1):
        lines = ''.join(f'{c}_{i} {n} 1 1\n' for n, c in ((1, 'A'), (2, 'B')))
        write(root / f'annotations/{split}.txt', lines)
        for name in 'AB':
            write(root / f'images/{name}_{i}.jpg')
    small = type('Pets', (OxfordIIITPet,), dict(METAINFO=dict(classes=NAMES)))
    monkeypatch.setitem(DATASETS.module_dict, 'OxfordIIITPet', small)
    splits = dict.fromkeys(('trainval', 'test'), dict(images=2))
    changes = dict(root=str(root), classes=2, splits=splits)
    known = dict(pets=known_datasets()['pets'] | changes)
    monkeypatch.setattr(published, 'known_datasets', lambda: known)
    return root


def test_complete_and_incomplete_sets(small_pets, capsys):
    assert checker.main(['pets']) == 0
    output = capsys.readouterr().out
    assert output.count('2 of 2') == 4
    assert output.count(' complete') == 2
    assert 'expected' not in output
    (small_pets / 'images/B_1.jpg').unlink()
    assert checker.main(['pets']) == 1
    output = capsys.readouterr().out
    assert '1 of 2' in output
    assert output.count(' incomplete') == 1
    assert 'trainval: missing (1): images/B_1.jpg' in output
    assert f'trainval: classes without images (1): {NAMES[1]}' in output
    # The layout.
    assert 'images/Abyssinian_1.jpg' in output
    empty = small_pets / 'images'
    assert checker.main(['pets', '--root', str(empty)]) == 1
    assert 'annotations/trainval.txt' in capsys.readouterr().out


def test_list_and_help_name_every_data_set(capsys):
    assert ', '.join(known_datasets()) == checker.NAMES
    assert checker.main(['--list']) == 0
    output = capsys.readouterr().out
    for name, dataset in known_datasets().items():
        assert f'{name}: {dataset["title"]}' in output
        assert f'{dataset["root"]}/' in output


def test_images_are_decoded(tmp_path, capsys):
    folder = tmp_path / 'my/0'
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new('RGB', (60, 40), (6 * i, 9, 9)).save(folder / f'{i}.jpg')
    for old, new in (('1', os.fsdecode(b'1\xe9')), ('3', 'z [b]\n#1')):
        path = folder / f'{old}.jpg'
        path.write_bytes(path.read_bytes()[:300])
        path.rename(path.with_stem(new))
    for words in ([], ['--decode', '2']):  # the first and the third
        assert checker.main([str(tmp_path / 'my'), *words]) == 0
    capsys.readouterr()
    assert checker.main([str(tmp_path / 'my'), '--decode']) == 1
    output = capsys.readouterr().out
    for name in ('1\\xe9', 'z [b]\\n#1'):
        assert f'image {folder}/{name}.jpg: a JPEG that is cut' in output
    assert output.count('cut off') == 2
    assert 'layout' not in output


@pytest.mark.parametrize(
    'args',
    [[], ['birds'], ['pets', '--decode', '-1']],
)
def test_wrong_calls_of_the_checker(args, capsys):
    with pytest.raises(SystemExit) as caught:
        checker.main(args)
    assert caught.value.code == 2
    assert 'error: ' in capsys.readouterr().err


# make_semi_supervised_list.py


@pytest.fixture
def small_lists(monkeypatch):
    monkeypatch.setattr(lister, 'PERCENT', {4: 1, 6: 10})
    monkeypatch.setattr(lister, 'NUM_CLASSES', 3)


ONE = [
    'n01484850_2.JPEG',
    'n01440764_0.JPEG',
    'n01443537_1.JPEG',
    'n01440764_1.JPEG',
]


def convert(imagenet, names, *args):
    path = imagenet.parent / 'list.txt'
    path.write_text('\n'.join(names))
    return lister.main([str(path), '--root', str(imagenet), *args])


@pytest.mark.usefixtures('small_lists')
def test_list_becomes_mmpretrains(imagenet, capsys):
    assert convert(imagenet, ONE) == 0
    out = imagenet / 'meta/train_1percent.txt'
    assert out.read_text() == (
        'n01484850/n01484850_2.JPEG 2\n'
        'n01440764/n01440764_0.JPEG 0\n'
        'n01443537/n01443537_1.JPEG 1\n'
        'n01440764/n01440764_1.JPEG 0\n'
    )
    assert '4 images of 3 classes' in capsys.readouterr().out
    assert tree(imagenet / 'meta') == ['train_1percent.txt']
    # As mmpretrain reads it, beside the labels of the class folders.
    dataset = ImageNet(
        data_root=str(imagenet), split='train', ann_file=str(out)
    )
    folders = CustomDataset(data_root=str(imagenet), data_prefix='train')
    labels = {i['img_path']: i['gt_label'] for i in folders}
    assert len(dataset) == 4
    for info in dataset:
        assert labels[info['img_path']] == info['gt_label']
    # The larger list has another name.
    more = [f'{synset}_0.JPEG' for synset in SYNSETS[:2]]
    assert convert(imagenet, [*ONE, *more]) == 0
    assert (imagenet / 'meta/train_10percent.txt').is_file()


@pytest.mark.usefixtures('small_lists')
@pytest.mark.parametrize(
    ('names', 'problem'),
    [
        (ONE[:3], 'has 3 names of 3 classes instead of 4 (1%) or 6 (10%)'),
        ([*ONE[:3], ONE[0]], 'line 4: n01484850_2.JPEG is listed twice'),
        ([*ONE[:3], 'cat.jpg'], "line 4: 'cat.jpg' is not an image such"),
        ([*ONE[1:], 'n01443537_0.JPEG'], 'has 4 names of 2 classes'),
    ],
)
def test_wrong_lists_are_refused(names, problem, imagenet, capsys):
    assert convert(imagenet, names) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert problem in error
    assert not (imagenet / 'meta').exists()


@pytest.mark.usefixtures('small_lists')
def test_existing_annotations_stay_unless_forced(imagenet, capsys):
    out = imagenet / 'meta/train_1percent.txt'
    write(out, 'mine')
    assert convert(imagenet, ONE) == 2
    assert '--force' in capsys.readouterr().err
    assert out.read_text() == 'mine'
    assert convert(imagenet, ONE, '--force') == 0
    assert out.read_text() != 'mine'
    # What cannot be read or written.
    assert lister.main([str(imagenet / 'no.txt')]) == 2
    assert 'no.txt' in capsys.readouterr().err
    blocked = imagenet / 'train/n01440764/n01440764_0.JPEG/list.txt'
    assert convert(imagenet, ONE, '--out', str(blocked)) == 1
    assert 'cannot write' in capsys.readouterr().err


# make_imagenet_subset.py


def subset(
    imagenet,
    *args,
    classes='n01484850\nn01440764 # a tench\n\n',
    name='subset',
):
    """Run the tool on a list of classes; return its exit code and OUT."""
    path = imagenet.parent / 'classes.txt'
    path.write_text(classes)
    if not args:
        args = ('--classes', str(path))
    out = imagenet.parent / name
    args = ('--source', str(imagenet), '--out', str(out), *args)
    return subsetter.main(args), out


@pytest.mark.parametrize('layout', ['imagenet', 'flat_imagenet'])
def test_subset_links_to_the_images_of_its_classes(layout, request):
    root = request.getfixturevalue(layout)
    code, out = subset(root)
    assert code == 0
    assert (out / 'meta/classes.txt').read_text() == 'n01440764\nn01484850\n'
    for split, count in (('train', 3), ('val', 2)):
        dataset = CustomDataset(data_root=str(out), data_prefix=split)
        assert dataset.CLASSES == ('n01440764', 'n01484850')
        texts = [Path(i['img_path']).read_text() for i in dataset]
        part = '' if split == 'train' else 'val '
        assert texts == [
            f'{name} {part}{i}'
            for name in ('n01440764', 'n01484850')
            for i in range(count)
        ]
    assert (out / 'train/n01440764').is_symlink()
    # Nothing was copied, and the links survive a move of both folders.
    moved = out.parent / 'moved'
    moved.mkdir()
    for path in (root, out):
        path.rename(moved / path.name)
    files = (moved / 'subset').glob('*/*/*.JPEG')
    assert sum(path.is_file() for path in files) == 10


def test_again_is_harmless_and_other_content_stays(imagenet, capsys):
    (imagenet.parent / 'subset').mkdir()  # an empty folder is taken
    _, out = subset(imagenet)
    before = tree(out)
    assert len(before) == 8  # 2 x 2 links and their folders, the list
    assert subset(imagenet)[0] == 0
    assert 'nothing to do' in capsys.readouterr().out
    code, _ = subset(imagenet, classes='n01440764\n')
    assert code == 2
    assert '--out' in capsys.readouterr().err
    assert tree(out) == before
    (out / 'meta/classes.txt').unlink()  # not made by the tool
    assert subset(imagenet)[0] == 2


@pytest.mark.parametrize(
    ('classes', 'problem'),
    [
        ('n01440764\nn09999999\n', 'no folder n09999999'),
        ('n01440764\ntench\n', "line 2: 'tench' is not a class"),
        ('n01440764\n# one more\nn01440764\n', 'line 3: n01440764 is listed'),
        ('# none\n', 'no class in'),
    ],
)
def test_wrong_classes_are_refused(classes, problem, imagenet, capsys):
    code, out = subset(imagenet, classes=classes)
    assert code == 2
    assert problem in capsys.readouterr().err
    assert not out.exists()
    (imagenet / 'train').rename(imagenet / 'moved')
    assert subset(imagenet)[0] == 2
    assert 'correct --source' in capsys.readouterr().err


def test_flat_val_needs_all_classes_and_files(flat_imagenet, capsys):
    lost = sorted((flat_imagenet / 'val').iterdir())[0]
    lost.rename(flat_imagenet / 'lost')
    code, out = subset(flat_imagenet)
    assert code == 2
    assert str(lost) in capsys.readouterr().err
    (flat_imagenet / 'train/n01443537').rename(flat_imagenet / 'elsewhere')
    assert subset(flat_imagenet)[0] == 2
    assert 'must have 3 class folders, not 2' in capsys.readouterr().err
    assert not out.exists()


def test_random_draw_is_the_same_for_a_seed(imagenet, capsys):
    def draw(count, seed):
        args = SimpleNamespace(classes=None, random=count, seed=seed)
        names = [f'n{i:08d}' for i in range(1000)]
        return subsetter.choose_classes(args, names)

    draws = [draw(100, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(set(draws[0]))
    assert len(draws[0]) == 100
    code, out = subset(imagenet, '--random', '2', '--seed', '7')
    assert code == 0
    assert len((out / 'meta/classes.txt').read_text().split()) == 2
    assert subset(imagenet, '--random', '4')[0] == 2
    assert '--random 4 must be from 1 to 3' in capsys.readouterr().err
