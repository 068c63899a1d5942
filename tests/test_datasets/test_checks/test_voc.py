# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What labeling tools get wrong in VOC's files, and what is said about it."""

import os

import pytest
from mmengine.config import Config

from mmscfs.datasets.checks.detection import check_detection_data

XML = (
    '<annotation><filename>{name}.jpg</filename><size><width>60</width>'
    '<height>40</height><depth>3</depth></size><object><name>{kind}</name>'
    '<bndbox><xmin>{x1}</xmin><ymin>2</ymin><xmax>{x2}</xmax>'
    '<ymax>30</ymax></bndbox></object></annotation>'
)
LISTING = 'ImageSets/Main/trainval.txt'


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'VOC2007'


@pytest.fixture
def write(root, write_image):
    """Return what writes images of (kind, xmin, xmax) by their names."""

    def write(**objects):
        for folder in ('Annotations', 'ImageSets/Main'):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for seed, (name, (kind, x1, x2)) in enumerate(objects.items()):
            write_image(root / 'JPEGImages' / f'{name}.jpg', seed)
            (root / 'Annotations' / f'{name}.xml').write_text(
                XML.format(name=name, kind=kind, x1=x1, x2=x2)
            )
        (root / LISTING).write_text('\n'.join([*objects, '']))

    write(a1=('cat', 1, 20), b2=('dog', 5, 60))
    return write


@pytest.fixture
def cfg(tmp_path, write):
    """The stock layout: the data set repeated, and concatenated."""
    dataset = dict(
        type='VOCDataset',
        data_root=str(tmp_path),
        ann_file=f'VOC2007/{LISTING}',
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=dict(classes=('cat', 'dog', 'owl')),
    )
    repeated = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[dataset]),
    )
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(bbox_head=dict(num_classes=3)),
            train_dataloader=dict(dataset=repeated),
        )
    )


def test_good_data(cfg, log):
    check_detection_data(cfg)
    assert not log.messages


# Annotations: an object of class dog with the box (5, 2, 60, 30)

LAUGHS = (
    '<!DOCTYPE annotation [<!ENTITY x0 "ha">{}<!ENTITY x "&x30;">]>'.format(
        ''.join(f'<!ENTITY x{i + 1} "{f"&x{i};" * 10}">' for i in range(30))
    )
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
GOOD = XML.format(name='b2', kind='dog', x1=5, x2=60)
FLAG = '<difficult>{}</difficult><bndbox>'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', ['not XML']),
        (GOOD[:90], ['damaged', 'line 1']),
        *(
            (head + GOOD.replace('dog', '&x;'), ['document type'])
            for head in (LAUGHS, OUTSIDE)
        ),
        ('<a>' * 10**5, ['not XML']),
        (GOOD + ' ' * 2**22, ['larger than']),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_files(cfg, root, text, words, refuse):
    """The second of two; nothing that it names is opened."""
    path = root / 'Annotations/b2.xml'
    path.write_text(text)
    refuse(cfg, *words, str(path))


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('dog', '&x;', ['undefined entity']),
        ('<name>dog</name>', '', ["'object'", 'name=None']),
        ('bndbox', 'box', ['xmin=None', "'dog'"]),
        ('<ymin>2', '<ymin>two', ["ymin='two'"]),
        ('>60</xmax', '>9e999</xmax', ['xmax=inf']),
        # From 0 on, as mmdet counts.
        ('>60</xmax', '>5.9</xmax', ['(4, 1, 4, 29)', 'is empty']),
        ('>60</xmax', '>4</xmax', ['has a negative size', "b2.jpg'"]),
        ('<xmin>5', '<xmin>-9', []),
        ('5</xmin><ymin>2</ymin><xmax>60', '61</xmin><ymin>2</ymin><xmax>70')
        + (['outside of the image (60x40)'],),
        ('size>', 'sizes>', []),
        ('<width>60</width>', '', ['width=None']),
        ('<width>60', '<width>60.5', ["width='60.5'"]),
        ('<bndbox>', FLAG.format(' 0 '), []),
        ('<bndbox>', FLAG.format(' 1 '), ['nothing to learn']),
        ('<bndbox>', FLAG.format('maybe'), ["difficult='maybe'"]),
        ('<bndbox>', FLAG.format(''), ["difficult=''"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_objects(cfg, root, old, new, words, refuse):
    """The only ones of two files."""
    assert old in GOOD
    path = root / 'Annotations/b2.xml'
    path.write_text(GOOD.replace(old, new))
    (root / 'Annotations/a1.xml').write_text('<annotation/>')
    if not words:
        check_detection_data(cfg)
    elif words == ['nothing to learn']:
        refuse(cfg, *words, '1 with difficult=1')
    else:
        refuse(cfg, *words, 'b2')


def test_boxes_that_a_filter_leaves_out(cfg, refuse):
    """Of 19 x 28 and 55 x 28 px."""
    settings = cfg.train_dataloader.dataset.dataset.datasets[0]
    settings.filter_cfg = dict(bbox_min_size=28)
    check_detection_data(cfg)
    settings.filter_cfg = dict(bbox_min_size=29)
    refuse(cfg, '2 with a box below filter_cfg.bbox_min_size=29')


@pytest.mark.parametrize(
    ('objects', 'words'),
    [
        (
            dict(a1=('gull', 1, 20), b2=('crow', 1, 20)),
            ["found 'crow', 'gull'", 'metainfo=dict(classes=...)'],
        ),
        (dict(a1=('gull', 1, 20), b2=('dog', 1, 20)), []),
    ],
)
def test_unknown_classes(cfg, write, objects, words, refuse, log):
    write(**objects)
    if words:
        refuse(cfg, *words)
    else:
        check_detection_data(cfg)
        assert "'gull' are left out" in log.messages[0]


# Lists and files


@pytest.mark.parametrize('name', ['a/../../b', 'http://h:9/b', ''])
def test_a_list_cannot_leave_its_folder(cfg, root, name, refuse):
    (root / LISTING).write_text(f'a1\n{name}\nb2\n')
    refuse(cfg, repr(name), str(root / LISTING), 'not a path below')


@pytest.mark.parametrize(
    ('content', 'words'), [(b'a1\n\xff\n', 'not a list'), (b'', 'no images')]
)
def test_bad_lists(cfg, root, content, words, refuse):
    (root / LISTING).write_bytes(content)
    refuse(cfg, words, str(root / LISTING))


SUB_DATA_ROOT = 'data_prefix.sub_data_root'


@pytest.mark.parametrize(
    ('name', 'setting'),
    [
        (LISTING, 'train_dataloader.dataset.dataset.datasets[0].ann_file'),
        ('Annotations/b2.xml', SUB_DATA_ROOT),
        ('JPEGImages/b2.jpg', SUB_DATA_ROOT),
        ('JPEGImages', SUB_DATA_ROOT),
    ],
)
def test_missing_files(cfg, root, tmp_path, name, setting, refuse):
    (root / name).rename(tmp_path / 'elsewhere')
    refuse(cfg, 'not exist', setting, str(root / name))
    os.mkfifo(root / name)  # which reading would wait for
    refuse(cfg, 'not exist', setting, str(root / name))


def test_images_of_another_ending(cfg, root, refuse):
    """mmdet looks for .jpg alone."""
    path = root / 'JPEGImages/a1.jpg'
    path.rename(path.with_suffix('.png'))
    refuse(cfg, 'not exist', str(path), "('JPEGImages/a1.png' is there)")
