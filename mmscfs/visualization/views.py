# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The views of an image as the network gets them."""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.dataset import BaseDataset
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms import MultiCrop
from mmscfs.datasets.transforms.loading import EncodedImage

NUM_GLOBAL = 2


class View(NamedTuple):
    """One view.

    Attributes:
        image (np.ndarray): RGB uint8 (S, S, 3).
        box (tuple | None): Left, top, right and bottom of what it shows, px
            of the source image; None if nobody knows.
        changes (tuple[str, ...]): What else was done to it, in words.
    """

    image: np.ndarray
    box: tuple[float, float, float, float] | None = None
    changes: tuple[str, ...] = ()


class ImageViews(NamedTuple):
    """An image and its views.

    Attributes:
        name (str): Of the image.
        source (np.ndarray | None): RGB uint8 (H, W, 3); None if it has none.
        views (list[View]): Global ones first.
    """

    name: str
    source: np.ndarray | None
    views: list[View]


def bgr_to_rgb(image: np.ndarray) -> np.ndarray:
    """Turn the channels (H, W, 3) around."""
    return np.ascontiguousarray(image[..., ::-1])


def decoded(image: np.ndarray | EncodedImage) -> np.ndarray:
    """Return what ``LoadImage`` loaded as BGR image (H, W, 3)."""
    if isinstance(image, EncodedImage):
        return image.decode_in_full()
    return image


def to_image(view: Tensor) -> np.ndarray:
    """Return a uint8 BGR view (3, S, S) as RGB image (S, S, 3)."""
    return view.flip(0).permute(1, 2, 0).contiguous().numpy()


def steps(dataset: BaseDataset) -> list[BaseTransform]:
    """Return the transforms of a data set, or of the one that it wraps."""
    pipeline = getattr(dataset, 'pipeline', None)
    if pipeline is None:
        inner = getattr(dataset, 'dataset', None)
        inner = inner or next(iter(getattr(dataset, 'datasets', ())), None)
        return steps(inner) if inner is not None else []
    return list(getattr(pipeline, 'transforms', ()))


def find_multi_crop(dataset: BaseDataset) -> tuple[Compose, MultiCrop] | None:
    """Return what makes the images of a data set, and its MultiCrop.

    None if it has none. The MultiCrop is a copy that finishes the colours
    itself, with the values that it would leave to the device.
    """
    before: list[BaseTransform] = []
    for transform in steps(dataset):
        if isinstance(transform, MultiCrop):
            transform = copy.copy(transform)
            transform.color_on_device = False
            return Compose(before), transform
        before.append(transform)
    return None


def spread(total: int, count: int) -> list[int]:
    """Return places of ``count`` of ``total`` images, evenly spread.

    One more than an even step where there is room: images often follow each
    other by class in turn.
    """
    count = min(total, count)
    step = total // max(count, 1) + 1
    if (count - 1) * step < total:
        return [i * step for i in range(count)]
    return [total * i // count for i in range(count)]


def make_views(
    dataset: BaseDataset, places: Sequence[int], seed: int = 0, epoch: int = 0
) -> list[ImageViews]:
    """Make the views of some images as the training does in an epoch.

    With ``MultiCrop`` they are those of a run of this seed, if its
    sampler is ``KeyedSampler``, with their boxes; of other pipelines, what a
    sample has as ``inputs``, drawn from the global random generators.

    Args:
        dataset (BaseDataset): Of a pre-training.
        places (Sequence[int]): Which images.
        seed (int): The run's. Defaults to 0.
        epoch (int): Defaults to 0.

    Raises:
        ValueError: A sample has no views, or an image cannot be read.
    """
    found = find_multi_crop(dataset)
    if found is None:
        return [other_views(dataset, place) for place in places]
    load, multi_crop = found
    made = []
    for place in places:
        key = SampleKey(place, seed, epoch)
        results = load(dict(dataset.get_data_info(place), sample_idx=key))
        made.append(keyed_views(results, multi_crop, key))
    return made


def keyed_views(
    results: Mapping, multi_crop: MultiCrop, key: SampleKey
) -> ImageViews:
    """Make the views of a loaded image, and tell what was done to each."""
    image = decoded(results['img'])
    draws = multi_crop.draw(key)
    done = multi_crop(dict(results, sample_idx=key))
    views = []
    for i, (view, crop, row) in enumerate(
        zip(done['img'], done['crops'], draws, strict=True)
    ):
        kind = min(i, NUM_GLOBAL)
        left, top, right, bottom = map(float, crop[:4])
        sigma = multi_crop.sigma(kind, row)
        changes = (
            'flip' if crop[4] else '',
            'grey' if multi_crop.greys(row) else '',
            f'blur {sigma:.1f}' if sigma else '',
            'solarise' if multi_crop.solarizes(kind, row) else '',
        )
        views.append(
            View(
                to_image(view),
                (left, top, right, bottom),
                tuple(filter(None, changes)),
            )
        )
    return ImageViews(name_of(results), bgr_to_rgb(image), views)


def other_views(dataset: BaseDataset, place: int) -> ImageViews:
    """Make the views of an image by a pipeline without MultiCrop.

    Raises:
        ValueError: It makes no list of uint8 views.
    """
    inputs = dataset[place]['inputs']
    if not isinstance(inputs, (list, tuple)) or not all(
        isinstance(view, Tensor) and view.dtype == torch.uint8
        for view in inputs
    ):
        raise ValueError(
            'train_dataloader.dataset.pipeline has no MultiCrop and makes no '
            'list of uint8 views either: name the config of a pre-training '
            'by several views, e.g. configs/scfs_r50.py'
        )
    info = dataset.get_data_info(place)
    source = cv2.imread(str(info.get('img_path')))
    return ImageViews(
        name_of(info),
        None if source is None else bgr_to_rgb(source),
        [View(to_image(view)) for view in inputs],
    )


def name_of(info: Mapping) -> str:
    """Return what to call an image: its last folder and its name."""
    path = str(info.get('img_path', 'image'))
    return '/'.join(path.replace('\\', '/').split('/')[-2:])
