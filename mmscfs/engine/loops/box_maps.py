# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Maps of images of any size, one image at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmscfs.visualization import evaluating

from ..resume.random_states import kept_random_states
from .features import (
    choose_backbone,
    choose_layers,
    layer_names,
    normalize,
    own_places,
    progress,
)

STRIDE = 32  # px; sides are padded to multiples of it, as detectors do


class ImageMaps(NamedTuple):
    """The maps of an image.

    Attributes:
        place (int): The image's, in its data set.
        maps (dict[str, Tensor]): By layer, each (C, h, w).
        size (Sequence[int]): Height and width that they cover, px.
        inside (Sequence[int]): Those of the image, without padding.
        sample (Any): mmdet's ``DetDataSample``.
    """

    place: int
    maps: dict[str, Tensor]
    size: Sequence[int]
    inside: Sequence[int]
    sample: Any


def extract_maps(
    model: BaseModel,
    loader: DataLoader,
    what: str,
    layers: str | Sequence[str],
    network: str | None,
) -> Iterator[ImageMaps]:
    """Yield the maps of this process's images.

    Args:
        model (BaseModel): Its backbone should be in eval mode.
        loader (DataLoader): Yields images of any sizes, in their order.
        what (str): What to call them, e.g. "bank".
        layers (str | Sequence[str]): "last", "all", or names.
        network (str, optional): "teacher", "student", or None.

    Raises:
        ValueError: As :func:`check_layers`.
    """
    backbone = choose_backbone(model, network)
    places = iter(own_places(loader, what).tolist())
    for batch in progress(f'maps of the {what}')(loader):
        sizes = [tuple(image.shape[-2:]) for image in batch['inputs']]
        images = [pad(normalize(model, [i])) for i in batch['inputs']]
        maps: list[dict[str, Tensor]] = [{} for _ in images]
        for shape in dict.fromkeys(image.shape for image in images):
            group = [i for i, v in enumerate(images) if v.shape == shape]
            outputs = run(backbone, torch.cat([images[i] for i in group]))
            for name in choose_layers([*outputs], layers):
                for i, own in zip(group, outputs[name], strict=True):
                    maps[i][name] = own.float()
        # The sampler repeats images to give every process as many; the
        # places, which come last here, end before them.
        samples = batch['data_samples']
        for own, image, size, sample, place in zip(
            *(maps, images, sizes, samples, places), strict=False
        ):
            covered = tuple(image.shape[-2:])
            yield ImageMaps(place, own, covered, size, sample)


def run(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return a backbone's outputs by name."""
    outputs = backbone(images)
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    names = layer_names(backbone, len(outputs))
    return dict(zip(names, outputs, strict=True))


@torch.no_grad()
def check_layers(
    model: BaseModel,
    layers: str | Sequence[str] = 'all',
    network: str | None = None,
) -> None:
    """Check that a backbone has layers that are maps, by a small image.

    Args:
        model, layers, network: Those of :meth:`BoxProbe.measure`.

    Raises:
        ValueError: ``layers`` or ``network`` is not there, or a layer is no
            map.
    """
    backbone = choose_backbone(model, network)
    channels = (p.shape[1] for p in backbone.parameters() if p.ndim == 4)
    image = next(backbone.parameters()).new_zeros(
        1, next(channels, 3), 2 * STRIDE, 2 * STRIDE
    )
    with kept_random_states(), evaluating(backbone):
        outputs = run(backbone, image)
    for name in choose_layers([*outputs], layers):
        if outputs[name].ndim != 4:
            raise ValueError(
                f'box probe: {name} of {type(backbone).__name__} is not a '
                f'map, but has the shape {tuple(outputs[name].shape)}: set '
                "other layers, or model.backbone.out_type='featmap'"
            )


def pad(images: Tensor) -> Tensor:
    """Pad images at the right and the bottom with the mean's value, 0."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
