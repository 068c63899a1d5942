# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmscfs.models.search import global_average_pool, search_attention


@torch.no_grad()
def compute_search_maps(
    model, global_view: Tensor, local_views: Tensor
) -> dict[str, Tensor]:
    """Where each local view finds itself in a global view (Eqs. 5, 6).

    Query and keys come from one network, the teacher, as in the paper's
    Fig. 3.

    Args:
        model (SCFS): The model, whose search layers are shown.
        global_view (Tensor): Normalised view (3, S, S).
        local_views (Tensor): Normalised views (N, 3, s, s).

    Returns:
        dict[str, Tensor]: Attention (N, H, W) by name of search layer.
    """
    was_training = model.training
    model.eval()
    global_maps = model.extract_feat(global_view[None])
    local_maps = model.extract_feat(local_views)
    model.train(was_training)
    maps = {}
    for name, output in zip(
        model.head.layer_names, model.search_outputs, strict=True
    ):
        queries = global_average_pool(local_maps[output])[:, None]
        maps[name] = search_attention(queries, global_maps[output][None])[
            0, :, 0
        ]
    return maps


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map (h, w), min to max, over an RGB uint8 image (H, W, 3).

    The image goes grey, so that all colour is the map's.
    """
    span = heat.max() - heat.min()
    heat = (heat - heat.min()) / (span if span > 0 else 1)
    heat = cv2.resize(
        heat.astype(np.float32),
        image.shape[1::-1],
        interpolation=cv2.INTER_CUBIC,
    )
    colors = matplotlib.colormaps['inferno'](heat.clip(0, 1))[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return (0.35 * grey + 0.65 * 255 * colors).astype(np.uint8)


def draw_search_maps(
    samples: Sequence[tuple[np.ndarray, Sequence[np.ndarray], Mapping]],
    path: str | Path,
    title: str = '',
) -> None:
    """Draw images with their local views and search maps to a PNG.

    For each sample one row of local views, under the global view at its
    left, and one row of maps a search layer, the mean over the local views
    at its left.

    Args:
        samples (Sequence): (global view (S, S, 3), local views (s, s, 3),
            maps (N, H, W) by layer) with RGB uint8 views.
        path (str | Path): File to write.
        title (str): Defaults to none.
    """
    layers = list(samples[0][2])
    block = 1 + len(layers)
    columns = 1 + len(samples[0][1])
    figure = Figure(
        figsize=(1.35 * columns + 0.6, 1.4 * block * len(samples) + 0.5),
        layout='constrained',
    )
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(block * len(samples), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for i, (image, local_views, maps) in enumerate(samples):
        top = axes[i * block]
        top[0].imshow(image)
        top[0].set_title('global view', fontsize=8)
        for n, view in enumerate(local_views):
            top[n + 1].imshow(view)
            top[n + 1].set_title(f'local view {n + 1}', fontsize=8)
        for row, layer in enumerate(layers, 1):
            heat = np.asarray(maps[layer].float().cpu())
            panels = [heat.mean(0), *heat]
            for axis, panel in zip(axes[i * block + row], panels, strict=True):
                axis.imshow(overlay(image, panel))
            axes[i * block + row, 0].set_ylabel(layer, fontsize=8)
        axes[i * block + 1, 0].set_title('mean of maps', fontsize=8)
    figure.savefig(path, dpi=110)
