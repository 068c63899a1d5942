# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The views of an image as the network gets them, and their picture."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import BaseDataset
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms import MultiCrop
from mmscfs.datasets.transforms.loading import (
    EncodedImage,
    UnreadableImageError,
)
from mmscfs.datasets.wrappers import find_multi_crop, innermost

from .sheet import Cell, Mark, color_of, draw_sheet, fit

NUM_GLOBAL = 2
GLOBAL, LOCAL = 224, 96  # px of a view: those of most configs
SOURCE = 336, 224  # px, the greatest sides of an image


class View(NamedTuple):
    """One view."""

    image: np.ndarray  #: RGB uint8 (S, S, 3).
    #: Left, top, right and bottom of what it shows, px of the source image;
    #: None if they are unknown.
    box: tuple[float, float, float, float] | None = None
    changes: tuple[str, ...] = ()  #: What else was done to it, in words.


class ImageViews(NamedTuple):
    """An image and its views."""

    name: str  #: Of the image.
    source: np.ndarray | None  #: RGB uint8 (H, W, 3); None if it is unknown.
    views: list[View]  #: Global ones first.

    def shares(self, view: View) -> np.ndarray | None:
        """Return a view's box as shares of the image's sides, if known."""
        if view.box is None or self.source is None:
            return None
        return np.array(view.box) / (2 * self.source.shape[1::-1])


def decoded(image: np.ndarray | EncodedImage) -> np.ndarray:
    """Return what ``LoadImage`` loads as uint8 image (H, W, C)."""
    if isinstance(image, EncodedImage):
        return image.decode_in_full()
    return image


def to_rgb_image(image: np.ndarray | Tensor) -> np.ndarray:
    """Return an image as it can be seen: RGB uint8 (H, W, 3).

    Args:
        image (np.ndarray | Tensor): uint8 image (H, W, C) or view (C, H, W),
            BGR if C is 3. Of more channels, the first three are shown as
            red, green and blue, of fewer the first.
    """
    if isinstance(image, Tensor):
        image = image.permute(1, 2, 0).numpy()
    channels = image.shape[2]
    if channels != 3:
        shown = [0, 1, 2] if channels > 3 else [0, 0, 0]
        return np.ascontiguousarray(image[..., shown])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_readable(
    dataset: BaseDataset, load: Compose, place: int
) -> tuple[int, dict]:
    """Load an image, or as the training does the next one; with its place.

    Raises:
        UnreadableImageError: It cannot be read, and the data set does not
            skip, or no other can be read.
    """
    skips = getattr(innermost(dataset), 'on_error', 'raise') == 'skip'
    following = [(place + i) % len(dataset) for i in range(len(dataset))]
    for other in following if skips else []:
        with suppress(UnreadableImageError):
            return other, load(dict(dataset.get_data_info(other)))
    return place, load(dict(dataset.get_data_info(place)))


def spread(total: int, count: int) -> list[int]:
    """Return places of ``count`` of ``total`` images, evenly spread.

    For pictures: the images of a figure are drawn (see
    :mod:`mmscfs.datasets.subsets`), as even distances may favor a class. One
    more than an even step where there is room: images often follow each other
    by class in turn.
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
        epoch (int): Counted from 0. Defaults to 0.

    Raises:
        ValueError: A sample has no views, or an image cannot be read.
    """
    found = find_multi_crop(dataset)
    if found is None:
        return [other_views(dataset, place) for place in places]
    load, multi_crop = found
    made = []
    for place in places:
        found_at, results = load_readable(dataset, load, place)
        key = SampleKey(found_at, seed, epoch)
        made.append(keyed_views(results, multi_crop, key))
    return made


def keyed_views(
    results: Mapping, multi_crop: MultiCrop, key: SampleKey
) -> ImageViews:
    """Make the views of a loaded image, and tell what was done to each."""
    source = to_rgb_image(decoded(results['img']))
    done = multi_crop(dict(results, sample_idx=key))
    views = []
    for i, (view, crop, draws) in enumerate(
        zip(done['img'], done['crops'], multi_crop.draw(key), strict=True)
    ):
        kind = min(i, NUM_GLOBAL)
        *box, flipped = crop.tolist()
        sigma = multi_crop.sigma(kind, draws)
        changes = (
            'flip' if flipped else '',
            'gray' if multi_crop.greys(draws) else '',
            f'blur {sigma:.1f}' if sigma else '',
            'solarize' if multi_crop.solarizes(kind, draws) else '',
        )
        changes = tuple(filter(None, changes))
        views.append(View(to_rgb_image(view), tuple(box), changes))
    return ImageViews(name_of(results), source, views)


def other_views(dataset: BaseDataset, place: int) -> ImageViews:
    """Make the views of an image by a pipeline without MultiCrop.

    Raises:
        ValueError: It does not make a list of uint8 views.
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
        None if source is None else to_rgb_image(source),
        [View(to_rgb_image(view)) for view in inputs],
    )


def name_of(info: Mapping) -> str:
    """Return what to call an image: its last folder and its name."""
    path = str(info.get('img_path', 'image'))
    return '/'.join(path.replace('\\', '/').split('/')[-2:])


def draw_views(
    samples: Sequence[ImageViews], title: str = '', subtitle: str = ''
) -> np.ndarray:
    """Draw images with the boxes of their views, and these beside them.

    Args:
        samples (Sequence[ImageViews]): At least one.
        title (str): Defaults to none.
        subtitle (str): What the samples have in common. Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.

    Example:
        >>> picture = draw_views(make_views(dataset, [0, 1]), 'My crops')
    """
    widest = max(
        0 if sample.source is None else fit(sample.source, *SOURCE).shape[1]
        for sample in samples
    )
    rows = []
    for sample in samples:
        cells, marks = [], []
        for n, view in enumerate(sample.views):
            is_global = n < NUM_GLOBAL
            number = n + 1 if is_global else n + 1 - NUM_GLOBAL
            text = f'{"global" if is_global else "local"} {number}'
            shares = sample.shares(view)
            if shares is not None:
                x1, y1, x2, y2 = shares
                text += f' · {100 * (x2 - x1) * (y2 - y1):.0f} %'
                label = f'{"G" * is_global}{number}'
                marks.append(Mark(shares, color_of(n), label))
            side = GLOBAL if is_global else LOCAL
            below = text, ', '.join(view.changes)
            cells.append(
                Cell((side, side), view.image, below=below, frame=color_of(n))
            )
        source = Cell(
            (widest, SOURCE[1]), sample.source, above=sample.name, marks=marks
        )
        rows.append([source, *cells])
    return draw_sheet(rows, title, subtitle)
