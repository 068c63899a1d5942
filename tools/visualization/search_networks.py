# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Backbones of pre-training checkpoints that search images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from picture_command import read_config_file
from torch import nn

from mmscfs.checkpoint import (
    find_backbone,
    load_found,
    parse_config,
    read_checkpoint,
)
from mmscfs.engine.pretrained import pretraining_input
from mmscfs.visualization import SearchMaps, compute_search_maps, cut_views

# What a checkpoint's own config may build: a file is no trusted source, and
# other classes read files or run what their settings name.
TRUSTED = {
    *('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNet_CIFAR', 'ResNeXt'),
    *('SEResNet', 'SEResNeXt', 'VisionTransformer', 'MoCoV3ViT'),
    *('NormedVisionTransformer', 'SearchVisionTransformer'),
    *('BN', 'BN1d', 'BN2d', 'SyncBN', 'LN', 'LN2d', 'GN'),
    *('ReLU', 'GELU', 'Conv', 'Conv2d'),
}
# What settings that fit no class raise, by their kind.
UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
)
SIZES = dict(global_size=224, local_size=96)  # of a config without MultiCrop


class Network(NamedTuple):
    """A backbone that searches.

    Attributes:
        name (str): Of its checkpoint.
        backbone (nn.Module): In eval mode, on the CPU.
        layers (dict[str, int]): Its outputs that are searched, by name.
        input (dict): ``mean``, ``std`` and ``channel_order``.
        sizes (dict): ``global_size`` and ``local_size`` of its views, px.
    """

    name: str
    backbone: nn.Module
    layers: dict[str, int]
    input: dict
    sizes: dict[str, int]


def load_network(path: str, config: str | None, which: str | None) -> Network:
    """Build the backbone of a checkpoint.

    Raises:
        OSError: A file cannot be read.
        ValueError: The checkpoint is damaged or unsafe, has no config or an
            unknown one, or no maps to search.
    """
    init_default_scope('mmpretrain')
    checkpoint = read_checkpoint(path)
    found = find_backbone(checkpoint, which)
    if config is not None:
        settings = read_config_file(config).to_dict()
    else:
        meta = checkpoint.get('meta')
        text = meta.get('cfg') if isinstance(meta, Mapping) else None
        if not isinstance(text, str):
            raise ValueError(
                'it holds no config: name that of its pre-training by --config'
            )
        settings = parse_config(text)
    try:
        model = dict(settings['model'])
        backbone = dict(model['backbone'])
        if config is None:
            check_trusted(backbone)
        for name in ('init_cfg', 'pretrained', 'frozen_stages'):
            backbone.pop(name, None)
        if not model.get('search_neck') and 'depth' in backbone:
            backbone['out_indices'] = (1, 2, 3)
        backbone = MODELS.build(backbone)
    except UNBUILDABLE as error:
        raise ValueError(
            f'its config has no backbone that can be built ({error!r}): name '
            'that of its pre-training by --config'
        ) from error
    layers = chosen_layers(model, backbone)
    load_found(backbone, found)
    words = [
        str(Path(path).parent.name or Path.cwd().name),
        Path(path).stem,
        found.network,
    ]
    return Network(
        ' · '.join(filter(None, words)),
        backbone,
        layers,
        pretraining_input(checkpoint),
        view_sizes(settings),
    )


def check_trusted(settings: Any) -> None:
    """Check what a checkpoint's own config would build.

    Raises:
        ValueError: Something else than known backbones and their layers.
    """
    if isinstance(settings, Mapping):
        kind = settings.get('type')
        name = str(kind).removeprefix('mmpretrain.').removeprefix('mmscfs.')
        if kind is not None and name not in TRUSTED or '_scope_' in settings:
            raise ValueError(
                f'its config would build {kind!r}, which a checkpoint may not '
                'choose: name a config that you trust by --config'
            )
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for part in settings:
        check_trusted(part)


def chosen_layers(model: Mapping, backbone: nn.Module) -> dict[str, int]:
    """Return the outputs to search, by name.

    Raises:
        ValueError: There are none.
    """
    indices = getattr(backbone, 'out_indices', None)
    if isinstance(indices, int) or not indices:
        indices = []
    indices = sorted(indices)
    wanted = model.get('search_layers') or indices
    is_map = getattr(backbone, 'out_type', 'featmap') == 'featmap'
    if not is_map or not wanted or not {*wanted} <= {*indices}:
        raise ValueError(
            f'its {type(backbone).__name__} has no search layers: it gives '
            'no feature maps; only checkpoints of SCFS, or those with a '
            'ResNet, can be searched'
        )
    return {f'layer{i + 1}': indices.index(i) for i in wanted}


def view_sizes(settings: Mapping) -> dict[str, int]:
    """Return the sides of the views that the config trains with."""
    crop = find_multi_crop(settings.get('train_dataloader')) or {}
    return {
        name: crop[name] if type(crop.get(name)) is int else size
        for name, size in SIZES.items()
    }


def find_multi_crop(settings: Any) -> Mapping | None:
    """Return the settings of the MultiCrop somewhere in a config."""
    if isinstance(settings, Mapping):
        if settings.get('type') == 'MultiCrop':
            return settings
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return None
    return next(filter(None, map(find_multi_crop, settings)), None)


def search(
    network: Network, image: np.ndarray, boxes: np.ndarray, size: int | None
) -> tuple[np.ndarray, list[np.ndarray], dict[str, SearchMaps]]:
    """Find the views of an image in it.

    Args:
        network (Network): The network.
        image (np.ndarray): BGR uint8 (H, W, 3).
        boxes (np.ndarray): Of its local views, shares of its sides, (N, 4).
        size (int | None): Shorter side of the global view, px; None: that of
            the pre-training.

    Returns:
        tuple: The global view and the local views, BGR uint8, and the maps by
        layer.

    Raises:
        ValueError: The network has diverged.
    """
    whole, tile = network.sizes.values()
    if size is not None:
        whole, tile = size, max(16, round(tile * size / whole))
    views = cut_views(image, boxes, whole, tile)
    mean, std = (
        torch.tensor(network.input[name]).view(3, 1, 1)
        for name in ('mean', 'std')
    )
    is_rgb = network.input['channel_order'] == 'RGB'
    global_view, *local_views = (
        ((image.flip(0) if is_rgb else image) - mean) / std
        for image in (
            torch.from_numpy(view).permute(2, 0, 1).float()
            for view in (views[0], *views[1])
        )
    )
    maps = compute_search_maps(
        network.backbone, network.layers, global_view, local_views
    )
    if not all(
        torch.isfinite(part).all() for found in maps.values() for part in found
    ):
        raise ValueError(
            'its features are not finite (NaN or infinite): the network has '
            'diverged; take an earlier checkpoint'
        )
    return (*views, maps)
