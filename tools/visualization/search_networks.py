# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Backbones of pre-training checkpoints that search images."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from picture_command import LARGEST, read_config
from torch import Tensor, nn

from mmscfs.checkpoint import (
    find_backbone,
    flatten,
    load_found,
    parse_config,
    read_checkpoint,
    read_meta,
    resnet_settings,
)
from mmscfs.datasets import LoadImage
from mmscfs.datasets.transforms.loading import loader_like
from mmscfs.datasets.wrappers import leaf_datasets
from mmscfs.engine.pretrained import pretraining_input
from mmscfs.visualization import SearchMaps, compute_search_maps

SIZES = dict(global_size=224, local_size=96)  # of a config without MultiCrop


class SearchNetwork(NamedTuple):
    """A backbone that searches images."""

    name: str  #: What to call it.
    search: Callable  #: As ``search_image`` wants it.
    sizes: tuple[int, int]  #: Sides of the global view and of local ones, px.
    load: LoadImage  #: Loads images as the pre-training did.


def load_network(
    path: str, config: str | None, which: str | None, size: int | None
) -> SearchNetwork:
    """Build the backbone of a checkpoint.

    Args:
        path (str): The checkpoint.
        config (str, optional): That of its pre-training. Without it the
            weights tell the ResNet, and what the checkpoint holds of a
            config, which is read as text, the views and how images load.
        which (str, optional): "teacher" or "student".
        size (int, optional): Side of the global view, px; None for that of
            the pre-training. Local views scale with it.

    Raises:
        OSError: A file cannot be read.
        ValueError: The checkpoint is damaged or unsafe, needs a config, or
            has no maps to search.
    """
    init_default_scope('mmpretrain')
    checkpoint = read_checkpoint(path)
    found = find_backbone(checkpoint, which)
    if config is not None:
        settings = read_config(config).to_dict()
        model = settings.get('model') or {}
        if 'backbone' not in model:
            raise ValueError(
                f'{config} has no model.backbone: name the config of its '
                'pre-training'
            )
        backbone = dict(model['backbone'])
        for name in ('init_cfg', 'pretrained', 'frozen_stages'):
            backbone.pop(name, None)
        if not model.get('search_neck') and 'depth' in backbone:
            backbone['out_indices'] = (1, 2, 3)
    else:
        text = read_meta(checkpoint).get('cfg')
        settings = parse_config(text) if isinstance(text, str) else {}
        model = settings.get('model')
        model = model if isinstance(model, Mapping) else {}
        resnet = resnet_settings(found.state)
        if resnet is None:
            raise ValueError(
                f'it holds a {found} backbone that is not a plain ResNet: '
                'name the config of its pre-training by --config'
            )
        del resnet['channels']
        backbone = dict(resnet, type='ResNet', out_indices=(1, 2, 3))
    backbone = MODELS.build(backbone)
    sizes = dict(SIZES)
    try:
        layers, load = chosen_layers(model, backbone), loader(settings)
        for name, value in flatten(settings.get('train_dataloader')):
            key = name.rpartition('.')[2]
            is_size = type(value) is int and 16 <= value <= LARGEST
            if key in sizes and is_size:
                sizes[key] = value
    except (AttributeError, TypeError) as error:
        # The text of a checkpoint may be any.
        raise ValueError(
            f'the config that it holds cannot be used ({error}): name that of '
            'its pre-training by --config'
        ) from error
    load_found(backbone, found)
    whole, local = sizes.values()
    if size is not None:
        whole, local = size, max(16, round(local * size / whole))
    place = Path(path).absolute()
    folder = place.parent.name if place.is_file() else ''  # not mmscfs::...
    words = [folder, place.stem, found.network]
    search_it = partial(
        search, backbone, layers, pretraining_input(checkpoint)
    )
    name = ' · '.join(filter(None, words))
    return SearchNetwork(name, search_it, (whole, local), load)


def loader(settings: Mapping) -> LoadImage:
    """Return what loads images as a pre-training did.

    Raises:
        ValueError: Its settings are not valid.
    """
    data = (settings.get('train_dataloader') or {}).get('dataset')
    for _, leaf in leaf_datasets(data):
        return loader_like(leaf.get('pipeline') or ())
    return LoadImage()  # of a config without a data set


def search(
    backbone: nn.Module,
    layers: Mapping[str, int],
    views_input: Mapping,
    whole: Tensor,
    tiles: list[Tensor],
) -> dict[str, SearchMaps]:
    """Search views, uint8 (C, H, W), normalized as in ``views_input``."""
    mean, std = (
        torch.tensor(views_input[name]).view(-1, 1, 1)
        for name in ('mean', 'std')
    )
    is_rgb = views_input['channel_order'] == 'RGB'
    whole, *tiles = (
        ((view.flip(0) if is_rgb else view) - mean) / std
        for view in (whole, *tiles)
    )
    return compute_search_maps(backbone, layers, whole, tiles)


def chosen_layers(model: Mapping, backbone: nn.Module) -> dict[str, int]:
    """Return the outputs to search, by name.

    Raises:
        ValueError: The backbone has no such outputs.
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
            'no feature maps; name a checkpoint of SCFS, or one with a ResNet'
        )
    return {f'layer{i + 1}': indices.index(i) for i in wanted}
