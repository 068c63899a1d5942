# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Where a network finds local views in an image: the paper's Fig. 3."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmscfs.datasets.transforms.filters import resize_antialiased
from mmscfs.models.search import global_average_pool, search_attention
from mmscfs.models.utils import evaluating

from .sheet import GAP, Cell, Mark, color_of, draw_sheet, fit
from .views import to_rgb_image

STEP = 16  # px of views: the patches of a vision transformer divide it
ASPECT = 8  # of a view, at most
# Up to a full yellow: over an image, the paler ones would look like dirt.
COLORS = matplotlib.colormaps['inferno']
BRIGHTEST = 0.92
PANEL = 112  # px
LAYER = 58  # px, left of the panels
MOST_TWICE = 4  # local views of images that stand side by side
RAMP = 120  # px, of the key's colors
KEY = (
    'cosine similarity, from lowest to highest in each map (the numbers '
    'below it)'
)


class SearchMaps(NamedTuple):
    """Cosine similarities of a layer, each in [-1, 1]."""

    mean: Tensor  #: Of the mean of all local views' queries, (H, W).
    views: Tensor  #: Of each local view, (N, H, W).


class SearchSample(NamedTuple):
    """An image and what networks find in it."""

    image: np.ndarray  #: The global view, RGB uint8 (H, W, 3).
    local_views: Sequence[np.ndarray]  #: RGB uint8, each (h, w, 3).
    #: ``SearchMaps`` by name of network and of layer.
    found: Mapping[str, Mapping[str, SearchMaps]]
    #: What each local view shows of the image: left, top, right, bottom, as
    #: shares of its sides, (N, 4).
    boxes: np.ndarray
    name: str = ''  #: Of the image.


@torch.no_grad()
def compute_search_maps(
    backbone: nn.Module,
    layers: Mapping[str, int],
    global_view: Tensor,
    local_views: Sequence[Tensor],
) -> dict[str, SearchMaps]:
    """Where each local view finds itself in a global view (Eqs. 5, 6).

    Query and keys come from one network, as in the paper's Fig. 3, and the
    maps are their cosines, whatever the model's own search is. The
    backbone runs in eval mode and is left as it was.

    Args:
        backbone (nn.Module): E.g. the teacher's.
        layers (Mapping[str, int]): Which of its outputs to search, by name.
        global_view (Tensor): Normalized view (3, H, W).
        local_views (Sequence[Tensor]): Normalized views, each (3, h, w).

    Returns:
        dict[str, SearchMaps]: By name of layer.

    Raises:
        ValueError: An output is not a map, or not finite.
    """
    with evaluating(backbone):
        keys, *views = (
            backbone(view[None].contiguous(memory_format=torch.channels_last))
            for view in (global_view, *local_views)
        )
    if isinstance(keys, Tensor):
        keys, views = (keys,), [(view,) for view in views]
    maps = {}
    for name, output in layers.items():
        if keys[output].ndim != 4:
            raise ValueError(
                f'{name} of {type(backbone).__name__} is not a feature map '
                f'(shape {tuple(keys[output].shape)}): there is nothing to '
                'search in it'
            )
        queries = torch.cat([global_average_pool(v[output]) for v in views])
        queries = torch.cat([queries.mean(0, keepdim=True), queries])
        found = search_attention(queries[:, None], keys[output][None])
        found = found[0, :, 0].float().cpu()
        if not found.isfinite().all():
            raise ValueError(
                f'features of {name} are not finite (NaN or infinite): the '
                'network has diverged; take an earlier checkpoint'
            )
        maps[name] = SearchMaps(found[0], found[1:])
    return maps


def search_layers(model: BaseModel) -> dict[str, int]:
    """Return the outputs that an ``SCFS`` searches, by name."""
    names = model.head.layer_names
    return dict(zip(names, model.search_outputs, strict=True))


def jigsaw(rows: int = 2, columns: int = 2) -> np.ndarray:
    """Return the boxes of a jigsaw, as shares of an image's sides, (N, 4)."""
    top, left = np.mgrid[:rows, :columns].reshape(2, -1)
    sides = [columns, rows, columns, rows]
    return np.stack([left, top, left + 1, top + 1], axis=1) / sides


def cut_views(
    image: np.ndarray, boxes: np.ndarray, global_size: int, local_size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Make an image's global view and its local ones, undistorted.

    Args:
        image (np.ndarray): uint8 (H, W, C).
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
    """Scale an image as crops, its shorter side to about ``side`` px.

    The longer one to ASPECT times as much at most: the maps of a line of
    pixels would take all memory.
    """
    factor = side / min(image.shape[:2])
    height, width = (
        max(STEP, STEP * round(min(factor * length, ASPECT * side) / STEP))
        for length in image.shape[:2]
    )
    return resize_antialiased(image, (height, width))


def search_image(
    search: Callable[[Tensor, list[Tensor]], dict[str, SearchMaps]],
    image: np.ndarray,
    boxes: np.ndarray,
    global_size: int,
    local_size: int,
    name: str = '',
) -> SearchSample:
    """Search parts of an image in the whole.

    Args:
        search (Callable): From the global view and the local ones, uint8
            (C, H, W), to the maps.
        image (np.ndarray): uint8 (H, W, C), BGR if C is 3.
        boxes, global_size, local_size: As for ``cut_views``.
        name (str): Of the image. Defaults to none.

    Returns:
        SearchSample: With what the one network, named "", finds.
    """
    whole, tiles = cut_views(image, boxes, global_size, local_size)
    global_view, *local_views = (
        torch.from_numpy(view).permute(2, 0, 1) for view in (whole, *tiles)
    )
    maps = search(global_view, local_views)
    whole, *tiles = map(to_rgb_image, (whole, *tiles))
    return SearchSample(whole, tiles, {'': maps}, boxes, name)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map (h, w), min to max, over an RGB uint8 image (H, W, 3).

    The image goes gray, so that all color is the map's.
    """
    span = heat.max() - heat.min()
    heat = (heat - heat.min()) / (span if span > 0 else 1)
    heat = cv2.resize(
        heat.astype(np.float32),
        image.shape[1::-1],
        interpolation=cv2.INTER_CUBIC,
    )
    colors = COLORS(BRIGHTEST * heat.clip(0, 1))[..., :3]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # A dark image keeps its edges, and does not darken the map.
    gray = cv2.normalize(gray, None, 0, 255, cv2.NORM_MINMAX)[..., None]
    return (0.25 * gray + 0.75 * 255 * colors).astype(np.uint8)


def draw_search_maps(
    samples: Sequence[SearchSample], title: str = '', subtitle: str = ''
) -> np.ndarray:
    """Draw images with their local views and search maps.

    Each sample has one row of local views, the image at their left, and one
    row of maps for each search layer, that of the mean query at their left.
    Networks stand side by side; of one network, two samples.

    Args:
        samples (Sequence[SearchSample]): All with the same number of local
            views and the same networks.
        title (str): Defaults to none.
        subtitle (str): What the samples have in common. Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    networks = list(samples[0].found)
    side_by_side = len(networks)
    if side_by_side == 1 and len(samples[0].local_views) <= MOST_TWICE:
        side_by_side = 2
    blocks = [
        make_block(sample, name) for sample in samples for name in networks
    ]
    # A network may have fewer layers than the one beside it.
    gap = [Cell((sum(c.size[0] + GAP for c in blocks[0][0]) - GAP, 0))]
    rows = [
        list(chain(*parts))
        for start in range(0, len(blocks), side_by_side)
        for parts in zip_longest(
            *blocks[start : start + side_by_side], fillvalue=gap
        )
    ]
    ramp = COLORS(np.linspace(0, BRIGHTEST, RAMP))[None, :, :3]
    ramp = np.repeat((255 * ramp).astype(np.uint8), 12, axis=0)
    rows.append([Cell((RAMP, 12), ramp), Cell((0, 0), text=KEY)])
    return draw_sheet(rows, title, subtitle)


def make_block(sample: SearchSample, network: str) -> list[list[Cell]]:
    """Return the rows of cells of what one network finds in one image."""
    size = PANEL, PANEL
    marks = [
        Mark(box, color_of(n), str(n + 1))
        for n, box in enumerate(sample.boxes)
    ]
    name = ' · '.join(filter(None, (network, sample.name)))
    rows = [
        [
            Cell((LAYER, 0)),
            Cell(size, sample.image, above=name, below=['image'], marks=marks),
            *(
                Cell(
                    size,
                    view,
                    below=[f'local view {n + 1}'],
                    frame=color_of(n),
                )
                for n, view in enumerate(sample.local_views)
            ),
        ]
    ]
    image = fit(sample.image, *size)
    for layer, maps in sample.found[network].items():
        cells = [Cell((LAYER, 0), text=layer)]
        for heat in (maps.mean, *maps.views):
            text = f'{heat.min():.2f} to {heat.max():.2f}'
            text = text if heat is not maps.mean else f'mean {text}'
            cells.append(
                Cell(size, overlay(image, heat.numpy()), below=[text])
            )
        rows.append(cells)
    return rows
