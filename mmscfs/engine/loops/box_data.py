# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Annotated images for the box probe, checked before any of them is read."""

from collections.abc import Mapping
from typing import NamedTuple

from mmengine.dataset import ConcatDataset, DefaultSampler, pseudo_collate
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Subset

from mmscfs.datasets.checks.common import short
from mmscfs.datasets.subsets import draw
from mmscfs.datasets.wrappers import leaf_datasets

SEED = 0  # of the choice of images


class BoxData(NamedTuple):
    """Annotated images."""

    loader: DataLoader  #: Yields ``inputs`` and mmdet's ``data_samples``.
    classes: tuple[str, ...]  #: Names.
    boxes: int  #: Their objects.


def load_box_data(
    queries: Mapping, bank: Mapping, num_images: int, with_masks: bool
) -> tuple[BoxData, BoxData]:
    """Build the data of a box probe.

    Args:
        queries (Mapping): Config of the loader of images to judge. Its data
            sets are mmdet's, in any wrapper, and its pipeline is taken for
            the bank too. The annotations are loaded before it resizes.
        bank (Mapping): Config of the loader of images that answer.
        num_images (int): Images of each at most, drawn with one seed.
        with_masks (bool): Whether masks are loaded.

    Returns:
        tuple[BoxData, BoxData]: Queries and bank.

    Raises:
        ValueError: They have no boxes or no masks, other classes, or an image
            in common.
    """
    _, first = next(leaf_datasets(queries['dataset']))
    steps = [
        step
        for step in first.get('pipeline') or ()
        if 'LoadAnnotations' not in str(step['type'])
    ]
    # mmdet's pipelines of tests load annotations last, and their boxes keep
    # the pixels of the original image, not those of what the network sees.
    annotations = dict(
        type='mmdet.LoadAnnotations', with_bbox=True, with_mask=with_masks
    )
    own = dict(
        pipeline=[*steps[:1], annotations, *steps[1:]],
        test_mode=True,
        filter_cfg=None,
    )
    found, paths = [], []
    for name, loader in (('queries', queries), ('bank', bank)):
        data = ConcatDataset(
            [
                DATASETS.build({**settings, **own})
                for _, settings in leaf_datasets(loader['dataset'])
            ],
            ignore_keys=['dataset_type'],  # VOC's year
        )
        infos = [data.get_data_info(i) for i in range(len(data))]
        boxes = [count_boxes(info, name, with_masks) for info in infos]
        paths.append({info['img_path'] for info in infos})
        # At even distances, they could all be of one class: data sets list
        # classes in turn.
        images = Subset(data, draw(range(len(data)), num_images, SEED))
        in_order = DataLoader(
            images,
            batch_size=loader.get('batch_size', 1),
            num_workers=loader.get('num_workers', 0),
            sampler=DefaultSampler(images, shuffle=False),
            collate_fn=pseudo_collate,
        )
        classes = tuple(data.metainfo.get('classes') or ())
        total = sum(boxes[i] for i in images.indices)
        if not total:
            raise ValueError(
                f'box probe: {len(images)} images of the {name} have no box '
                f'of the classes {short(classes)}: annotate some, correct '
                'metainfo.classes, or raise num_images'
            )
        found.append(BoxData(in_order, classes, total))
    if found[0].classes != found[1].classes:
        raise ValueError(
            f'box probe: the bank has the classes {short(found[1].classes)}, '
            f'the queries {short(found[0].classes)}; both need the same in '
            'one order: set metainfo=dict(classes=(...)) of both data sets'
        )
    if common := sorted(paths[0] & paths[1]):
        raise ValueError(
            f'box probe: {len(common)} images are in the bank and among the '
            f'queries, e.g. {common[0]!r}, and would find themselves: use '
            "another ann_file for one of them, such as the validation's"
        )
    return found[0], found[1]


def count_boxes(info: Mapping, name: str, with_masks: bool) -> int:
    """Return the number of objects in an image of the data set ``name``.

    Raises:
        ValueError: It has no boxes, or an object no mask.
    """
    if 'instances' not in info:
        raise ValueError(
            f'box probe: the data set of the {name} has no boxes: use one of '
            "mmdet, such as type='mmdet.CocoDataset' or 'mmdet.VOCDataset'"
        )
    objects = [item for item in info['instances'] if not item['ignore_flag']]
    if with_masks and not all(item.get('mask') for item in objects):
        raise ValueError(
            f'box probe: segmentation needs masks, which objects of the '
            f'{name} lack ({info.get("img_path")}): annotate them, or set '
            'segmentation=False (of the command: --no-masks)'
        )
    return len(objects)
