# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Damage annotations at random: each is read, or refused by name.

python tests/fuzz_annotations.py --seconds 300
"""

import json
from types import SimpleNamespace

import cv2
import numpy as np
from mutations import fuzz, main
from pycocotools import mask as coco_mask

from mmscfs.datasets.checks.coco import check_coco
from mmscfs.datasets.checks.voc import check_voc

CLASSES = ('cat', 'dog')
# Two of polygons, and one as run lengths, plain and packed.
MASKS = (
    [[2.5, 3, 12.5, 3, 12.5, 15.25]],
    [[2, 3, 12, 3, 12, 15], [20, 20, 30, 20, 30, 29.5, 20, 29.5]],
    dict(size=[30, 40], counts=[63, 12, 1125]),
    dict(size=[30, 40], counts='o1<US1'),
)
COCO = dict(
    images=[
        dict(id=i, file_name=f'{i}.jpg', width=40, height=30) for i in (1, 2)
    ],
    annotations=[
        dict(
            id=i,
            image_id=1 + i % 2,
            category_id=1 + i % 2,
            bbox=[2.5, 3, 10, 12.25],
            area=122.5,
            iscrowd=0,
            segmentation=mask,
        )
        for i, mask in enumerate(MASKS)
    ],
    categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
)
VOC = """<annotation><filename>1.jpg</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>14</ymax></bndbox>
</object><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>
"""


def naming(path, check, dataset):
    """Check a data set.

    Of what lies beside the file the folder is named, and if all names of
    objects are unknown, the setting of the classes.
    """
    try:
        check(dataset, 'train_dataloader.dataset')
    except (ValueError, FileNotFoundError) as error:
        if not any(w in str(error) for w in (str(path.parent), 'metainfo')):
            raise
        raise type(error)(f'{path.name}: {error}') from error


def read_coco(path):
    naming(
        path,
        check_coco,
        SimpleNamespace(
            ann_file=str(path),
            metainfo=dict(classes=CLASSES),
            data_root=str(path.parent),
            data_prefix=dict(img=str(path.parent)),
            test_mode=False,
        ),
    )
    draw_masks(path)


def draw_masks(path):
    """Draw the masks of a checked file as mmdet does, in small images.

    Nothing catches what kills the process, nor memory that was never set.
    """
    coco = json.loads(path.read_text(encoding='utf-8'))
    images = {image['id']: image for image in coco['images']}
    for item in coco.get('annotations') or []:
        image, mask = images.get(item['image_id']), item.get('segmentation')
        if not mask or not image:
            continue
        size = int(image['height']), int(image['width'])
        if min(size) < 1 or size[0] * size[1] > 1e7:
            continue
        if isinstance(mask, list):  # mmdet leaves out those of two points
            mask = [polygon for polygon in mask if len(polygon) >= 6]
            masks = coco_mask.frPyObjects(mask, *size) if mask else []
        elif isinstance(mask['counts'], list):
            masks = [coco_mask.frPyObjects(mask, *size)]
        else:
            masks = [mask]
        for drawn in map(coco_mask.decode, masks):
            assert drawn.max() <= 1


def read_voc(path):
    if path.suffix == '.xml':
        (path.parent / 'list.txt').write_text('1\n')
    else:  # the annotation is whole
        (path.parent / '1.xml').write_text(VOC)
    naming(
        path,
        check_voc,
        SimpleNamespace(
            ann_file=str(path.parent / 'list.txt'),
            metainfo=dict(classes=CLASSES),
            data_root=str(path.parent),
            sub_data_root=str(path.parent),
            ann_subdir='',
            img_subdir='',
            test_mode=False,
        ),
    )


def run(folder, seconds=2.0, seed=0, cases=None):
    folder.mkdir(exist_ok=True)
    for i in (1, 2):
        image = np.full((30, 40, 3), 50 * i, np.uint8)
        assert cv2.imwrite(str(folder / f'{i}.jpg'), image)
    samples = [
        ('coco.json', json.dumps(COCO).encode(), read_coco),
        ('1.xml', VOC.encode(), read_voc),
        ('list.txt', b'1\n', read_voc),
    ]
    errors = (ValueError, FileNotFoundError)
    return fuzz(
        samples, folder, errors, seconds=seconds, seed=seed, cases=cases
    )


if __name__ == '__main__':
    main(__doc__, run)
