# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Where a network finds local views in an image: the paper's Fig. 3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmscfs.models.search import global_average_pool, search_attention

STEP = 16  # px of views: the patches of a vision transformer divide it


class SearchMaps(NamedTuple):
    """Cosine similarities of a layer, each in [-1, 1].

    Attributes:
        mean (Tensor): Of the mean of all local views' queries, (H, W).
        views (Tensor): Of each local view, (N, H, W).
    """

    mean: Tensor
    views: Tensor


class SearchSample(NamedTuple):
    """An image and what networks find in it.

    Attributes:
        image (np.ndarray): The global view, RGB uint8 (H, W, 3).
        local_views (Sequence[np.ndarray]): RGB uint8, each (h, w, 3).
        found (Mapping): ``SearchMaps`` by name of network and of layer.
        boxes (np.ndarray | None): What each local view shows of the image:
            left, top, right, bottom, as shares of its sides, (N, 4). Defaults
            to None: not drawn.
        name (str): Of the image. Defaults to none.
    """

    image: np.ndarray
    local_views: Sequence[np.ndarray]
    found: Mapping[str, Mapping[str, SearchMaps]]
    boxes: np.ndarray | None = None
    name: str = ''


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and every part back in its own after it."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@torch.no_grad()
def compute_search_maps(
    backbone: nn.Module,
    layers: Mapping[str, int],
    global_view: Tensor,
    local_views: Sequence[Tensor],
) -> dict[str, SearchMaps]:
    """Where each local view finds itself in a global view (Eqs. 5, 6).

    Query and keys come from one network, as in the paper's Fig. 3. The
    backbone runs in eval mode and is left as it was.

    Args:
        backbone (nn.Module): E.g. the teacher's.
        layers (Mapping[str, int]): Which of its outputs to search, by name.
        global_view (Tensor): Normalised view (3, H, W).
        local_views (Sequence[Tensor]): Normalised views, each (3, h, w).

    Returns:
        dict[str, SearchMaps]: By name of layer.

    Raises:
        ValueError: An output is no map.
    """
    with evaluating(backbone):
        keys = outputs_of(backbone, global_view)
        views = [outputs_of(backbone, view) for view in local_views]
    maps = {}
    for name, output in layers.items():
        if keys[output].ndim != 4:
            raise ValueError(
                f'{name} of {type(backbone).__name__} is no feature map '
                f'(shape {tuple(keys[output].shape)}): there is nothing to '
                'search in it'
            )
        queries = torch.cat([global_average_pool(v[output]) for v in views])
        queries = torch.cat([queries.mean(0, keepdim=True), queries])
        found = search_attention(queries[:, None], keys[output][None])
        mean, *each = found[0, :, 0].float().cpu()
        maps[name] = SearchMaps(mean, torch.stack(each))
    return maps


def outputs_of(backbone: nn.Module, view: Tensor) -> Sequence[Tensor]:
    """Return a backbone's outputs for one view (3, H, W)."""
    outputs = backbone(
        view[None].contiguous(memory_format=torch.channels_last)
    )
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def search_layers(model: BaseModel) -> dict[str, int]:
    """Return the outputs that an ``SCFS`` searches, by name."""
    names = model.head.layer_names
    return dict(zip(names, model.search_outputs, strict=True))


def jigsaw(rows: int = 2, columns: int = 2) -> np.ndarray:
    """Return the boxes of a jigsaw, as shares of an image's sides, (N, 4)."""
    return np.array(
        [
            (
                column / columns,
                row / rows,
                (column + 1) / columns,
                (row + 1) / rows,
            )
            for row in range(rows)
            for column in range(columns)
        ]
    )


def cut_views(
    image: np.ndarray, boxes: np.ndarray, global_size: int, local_size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Make an image's global view and its local ones, undistorted.

    Args:
        image (np.ndarray): uint8 (H, W, 3).
        boxes (np.ndarray): Shares of its sides, (N, 4).
        global_size (int): Shorter side of the global view, px, rounded to a
            multiple of 16 like all sides.
        local_size (int): The same of the local views.

    Returns:
        tuple[np.ndarray, list[np.ndarray]]: The global view and the local
        ones, uint8.
    """
    height, width = image.shape[:2]
    edges = np.rint(boxes * [width, height, width, height]).astype(int)
    # Less than a pixel at an edge is that pixel.
    edges[:, :2] = np.minimum(edges[:, :2], [width - 1, height - 1])
    tiles = [
        scale(
            image[top : max(bottom, top + 1), left : max(right, left + 1)],
            local_size,
        )
        for left, top, right, bottom in edges
    ]
    return scale(image, global_size), tiles


def scale(image: np.ndarray, side: int) -> np.ndarray:
    """Scale an image so that its shorter side is about ``side`` px."""
    factor = side / min(image.shape[:2])
    height, width = (
        max(STEP, STEP * round(factor * length / STEP))
        for length in image.shape[:2]
    )
    shrinks = min(image.shape[:2]) >= 2 * side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=how)
