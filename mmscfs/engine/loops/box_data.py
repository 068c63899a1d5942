# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Annotated images for the box probe, checked before any of them is read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.dataset import ConcatDataset, DefaultSampler, pseudo_collate
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Subset

from mmscfs.datasets.checks.common import leaf_datasets, short
from mmscfs.visualization import spread

LOADER_SETTINGS = ('batch_size', 'num_workers', 'pin_memory', 'timeout')


class BoxData(NamedTuple):
    """Annotated images.

    Attributes:
        loader (DataLoader): Yields ``inputs`` and mmdet's ``data_samples``.
        classes (tuple[str, ...]): Names.
        boxes (int): Their objects.
    """

    loader: DataLoader
    classes: tuple[str, ...]
    boxes: int


def load_box_data(
    queries: Mapping, bank: Mapping, num_images: int, with_masks: bool
) -> tuple[BoxData, BoxData]:
    """Build the data of a box probe.

    Args:
        queries (Mapping): Config of the loader of images to judge. Its data
            sets are mmdet's, in any wrapper, and its pipeline is taken for
            the bank too. The annotations are loaded before it resizes.
        bank (Mapping): Config of the loader of images that answer.
        num_images (int): Images of each at most, evenly spread; of the bank
            one more for each class that these lack.
        with_masks (bool): Whether masks are loaded.

    Returns:
        tuple[BoxData, BoxData]: Queries and bank.

    Raises:
        ValueError: They have no boxes or no masks, boxes in one image only,
            other classes, or an image in common.
    """
    configs = dict(queries=queries, bank=bank)
    _, first = next(leaf_datasets(queries['dataset']))
    steps = arrange(first.get('pipeline') or (), with_masks)
    sets = {name: build(cfg, steps) for name, cfg in configs.items()}
    labels, paths = {}, {}
    for name, data in sets.items():
        infos = [data.get_data_info(i) for i in range(len(data))]
        paths[name] = {info.get('img_path') for info in infos}
        labels[name] = [read_labels(i, name, with_masks) for i in infos]
    classes = {
        name: tuple(data.metainfo.get('classes') or ())
        for name, data in sets.items()
    }
    if not classes['bank'] or classes['bank'] != classes['queries']:
        raise ValueError(
            f'box probe: the bank has the classes {short(classes["bank"])}, '
            f'the queries {short(classes["queries"])}; both need the same in '
            'one order: set metainfo=dict(classes=(...)) of both data sets'
        )
    if common := sorted(paths['bank'] & paths['queries']):
        raise ValueError(
            f'box probe: {len(common)} images are in the bank and among the '
            f'queries, e.g. {common[0]!r}, and would find themselves: use '
            "another ann_file for one of them, such as the validation's"
        )
    chosen = {
        name: spread(len(data), num_images) for name, data in sets.items()
    }
    shown, known = (
        {label for i in chosen[name] for label in labels[name][i]}
        for name in ('queries', 'bank')
    )
    for label in sorted(shown - known):
        places = (i for i, own in enumerate(labels['bank']) if label in own)
        place = next(places, None)
        if place is None:
            raise ValueError(
                'box probe: the queries have boxes of the class '
                f'{classes["bank"][label]!r}, the bank has none: annotate '
                'some in the training images, or leave the class out of '
                'metainfo.classes of both data sets'
            )
        chosen['bank'].append(place)
    found = []
    for name, data in sets.items():
        used = [labels[name][i] for i in chosen[name]]
        if sum(map(bool, used)) < 2:
            raise ValueError(
                f'box probe: of {len(used)} images of the {name} '
                f'{sum(map(bool, used))} has boxes of its classes, but at '
                'least two must: add annotated images, or raise num_images'
            )
        loader = load_in_order(configs[name], Subset(data, chosen[name]))
        found.append(BoxData(loader, classes[name], sum(map(len, used))))
    return found[0], found[1]


def arrange(steps: Sequence[Mapping], with_masks: bool) -> list[Mapping]:
    """Return a pipeline that loads annotations right after the image.

    mmdet's pipelines of tests load them last, so that boxes keep the pixels
    of the original image, not those of what the network sees.
    """
    load, *others = (
        step
        for step in steps
        if str(step['type']).split('.')[-1] != 'LoadAnnotations'
    )
    annotations = dict(
        type='mmdet.LoadAnnotations', with_bbox=True, with_mask=with_masks
    )
    return [load, annotations, *others]


def build(loader: Mapping, steps: Sequence[Mapping]) -> Any:
    """Build the data sets of a loader as one, with another pipeline."""
    own = dict(pipeline=steps, test_mode=True, filter_cfg=None)
    leaves = [
        DATASETS.build({**settings, **own})
        for _, settings in leaf_datasets(loader['dataset'])
    ]
    if len(leaves) == 1:
        return leaves[0]
    return ConcatDataset(leaves, ignore_keys=['dataset_type'])  # VOC's year


def load_in_order(settings: Mapping, images: Subset) -> DataLoader:
    """Return a loader of images in their order, in a config's batches."""
    return DataLoader(
        images,
        sampler=DefaultSampler(images, shuffle=False),
        collate_fn=pseudo_collate,
        **{k: settings[k] for k in LOADER_SETTINGS if k in settings},
    )


def read_labels(info: Mapping, name: str, with_masks: bool) -> list[int]:
    """Return the classes of an image's objects.

    Args:
        info (Mapping): Its entry in the data set.
        name (str): Of the data set, for errors.
        with_masks (bool): Whether each needs a mask.

    Raises:
        ValueError: The data set has no boxes, or an object no mask.
    """
    if 'instances' not in info:
        raise ValueError(
            f'box probe: the data set of the {name} has no boxes: use one '
            "of mmdet, such as type='mmdet.CocoDataset' or "
            "'mmdet.VOCDataset'"
        )
    objects = [item for item in info['instances'] if not item['ignore_flag']]
    if with_masks and not all(item.get('mask') for item in objects):
        raise ValueError(
            f'box probe: segmentation needs masks, which objects of the '
            f'{name} lack ({info.get("img_path")}): annotate them, or set '
            'segmentation=False (of the command: --no-masks)'
        )
    return [item['bbox_label'] for item in objects]
