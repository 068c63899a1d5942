# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell how a checkpoint was pre-trained, by what it holds."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from mmscfs.checkpoint import (
    find_backbone,
    parse_config,
    read_checkpoint,
    read_meta,
)
from mmscfs.checkpoint.plain import to_count
from mmscfs.datasets.wrappers import leaf_datasets

# The paper's names of methods by the types in configs, in lower case.
ALGORITHMS = {
    'scfs': 'SCFS',
    'dino': 'DINO',
    'mococo2': 'MoCo + CO2',
    'mocov2co2': 'MoCo v2 + CO2',
    'moco': 'MoCo',
    'mocov2': 'MoCo v2',
    'mocov3': 'MoCo v3',
    'byol': 'BYOL',
    'swav': 'SwAV',
    'simclr': 'SimCLR',
    'simsiam': 'SimSiam',
    'barlowtwins': 'Barlow Twins',
    'densecl': 'DenseCL',
    'imageclassifier': 'supervised',
}
ABLATED = ('DINO', 'SCFS')  # by the paper
DEFAULT_SEARCH = 'SoftFeatureSearch'
# The sizes that all projects agree on, by mmpretrain's names.
VIT_SIZES = {
    'deit-tiny': 'Ti',
    'deit-small': 'S',
    'deit-base': 'B',
    'base': 'B',
    'large': 'L',
}


class Origin(NamedTuple):
    """How a backbone was pre-trained; None where that is unknown."""

    #: "random", "supervised", or an algorithm, e.g. "SCFS".
    method: str | None = None
    epochs: int | None = None  #: Of pre-training.
    batch_size: int | None = None  #: Images in a step, of all processes.
    data: str = ''  #: Names of the data sets.
    #: "teacher" or "student": which of two is taken, or was exported.
    network: str | None = None
    #: What the paper's ablations vary, from the config: ``num_local``,
    #: ``local_scale``, ``search_layers``, ``search``, ``search_views``, and
    #: ``search_alone`` if all other terms have weight 0.
    recipe: dict[str, Any] = {}
    name: str = ''  #: What to call it in place of the method, e.g. a file.
    checkpoint: str | None = None  #: The file that it is taken from.

    @property
    def mode(self) -> str:
        """The method, DINO and SCFS as the paper's Table 7 names them."""
        mode = self.method or '-'
        if mode not in ABLATED:
            return mode
        search = str(self.recipe.get('search') or DEFAULT_SEARCH)
        if self.recipe.get('search_views') == 'none':
            mode = 'DINO w ML'
        elif 'RoI' in search:
            mode = 'ROI Crop'
        elif search != DEFAULT_SEARCH:
            mode += f', {search}'
        if self.recipe.get('num_local') == 0:
            mode += ' w/o MC'
        if self.recipe.get('search_alone'):
            mode += ', search alone'
        return mode

    @property
    def label(self) -> str:
        """Method, data and network in words, e.g. "SCFS (coco), student"."""
        text = self.name or self.mode
        if self.data:
            text += f' ({self.data})'
        return f'{text}, student' if self.network == 'student' else text


ORIGINS: dict[str, Origin] = {}  # of the files that were read, by path


def read_origin(
    path: str, checkpoint: Mapping[str, Any] | None = None
) -> Origin:
    """Read what a checkpoint tells about its pre-training, once a process.

    Nothing is guessed from the file's name. Never fails: a missing or
    damaged file tells nothing, and goes by its name.

    Args:
        path (str): A file, weights of the package (``mmscfs::...``), or an
            address such as "torchvision://resnet50".
        checkpoint (Mapping, optional): What the file holds, if it was read
            already. Defaults to None: it is read here.

    Example:
        >>> read_origin('work_dirs/scfs_r50/epoch_200.pth').label
        'SCFS (imagenet)'
    """
    if path in ORIGINS:
        return ORIGINS[path]
    if '://' in path:
        scheme, name = path.split('://', 1)
        if scheme == 'torchvision' or name.startswith('detectron2/'):
            source = scheme if scheme == 'torchvision' else name
            return Origin('supervised', name=f'supervised ({source})')
        return Origin(name=path)
    origin = Origin()
    try:
        origin = _describe(checkpoint or read_checkpoint(path))
    except FileNotFoundError:
        pass  # removed since then
    except (AttributeError, TypeError, ValueError) as error:
        # A config's text may hold anything at all.
        print_log(
            f'{path}: {error}; tables name it by its file',
            logger='current',
            level=logging.WARNING,
        )
    name = '' if origin.method else '/'.join(Path(path).parts[-2:])
    ORIGINS[path] = origin._replace(name=name, checkpoint=path)
    return ORIGINS[path]


def _describe(checkpoint: Mapping[str, Any]) -> Origin:
    """Return what a checkpoint holds about its pre-training.

    Raises:
        AttributeError, TypeError, ValueError: Its config cannot be used, or
            it lacks a backbone.
    """
    meta = read_meta(checkpoint)
    found = find_backbone(checkpoint)
    if isinstance(meta.get('cfg'), str):
        origin = origin_of(parse_config(meta['cfg']), meta.get('world_size'))
    elif found.layout.endswith(' release'):
        origin = Origin(found.layout.removesuffix(' release'))
    else:
        # torchvision's files are tensors alone; a classifier is among them.
        is_bare = all(isinstance(v, Tensor) for v in checkpoint.values())
        is_classifier = (found.layout, found.heads) == ('torchvision', ('fc',))
        origin = Origin('supervised' if is_bare and is_classifier else None)
    epochs = to_count(meta.get('epoch')) or to_count(checkpoint.get('epoch'))
    network = meta.get('network', found.network)
    return origin._replace(epochs=epochs or None, network=network)


def origin_of(cfg: Mapping, world_size: int | str | None = None) -> Origin:
    """Read from a config how it pre-trains.

    Args:
        cfg (Mapping): A dumped config.
        world_size (int | str, optional): Number of processes of the run.
            Defaults to None: unknown, and so is the batch size.

    Raises:
        AttributeError, TypeError, ValueError: The config cannot be used.
    """
    model = cfg.get('model') or {}
    name = str(model.get('type')).lower()
    # Versions 1 and 2 are one class.
    if (model.get('neck') or {}).get('type') == 'MoCoV2Neck':
        name = {'moco': 'mocov2', 'mococo2': 'mocov2co2'}.get(name, name)
    loader = cfg.get('train_dataloader') or {}
    batch_size = None
    if world_size is not None and isinstance(loader.get('batch_size'), int):
        wrapper = cfg.get('optim_wrapper') or {}
        steps = int(wrapper.get('accumulative_counts', 1))
        batch_size = int(world_size) * loader['batch_size'] * steps
    roots = [
        Path(str(leaf.get('data_root', ''))).name
        for _, leaf in leaf_datasets(loader.get('dataset'), 'dataset')
    ]
    return Origin(
        ALGORITHMS.get(name, model.get('type')),
        batch_size=batch_size,
        data=', '.join(root for root in dict.fromkeys(roots) if root),
        recipe=_recipe(model, loader.get('dataset')),
    )


def find_start(configs: Sequence[Mapping]) -> Origin:
    """Find what a training started from, before any resumption.

    Args:
        configs (Sequence[Mapping]): The config of each of its starts, oldest
            first, at least one.

    Raises:
        AttributeError, TypeError: A config cannot be used.
    """
    cfg = next((c for c in reversed(configs) if not c.get('resume')), None)
    cfg = cfg or configs[0]
    if cfg.get('load_from') and not cfg.get('resume'):
        return Origin(name=f'all of {Path(str(cfg["load_from"])).name}')
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    if not isinstance(backbone, Mapping):
        return Origin()
    return backbone_origin(backbone)


def backbone_origin(backbone: Mapping) -> Origin:
    """Return what a backbone starts from, by its config.

    ``network`` is the one that is taken. An address has no ``checkpoint``.
    """
    settings = backbone.get('init_cfg') or []
    for item in [settings] if isinstance(settings, Mapping) else settings:
        if str(item.get('type')).split('.')[-1] == 'Pretrained':
            break
    else:
        return Origin('random')
    origin = read_origin(item['checkpoint'])
    network = item.get('network') or origin.network
    # mmengine's own initializer, on a raw checkpoint of mmscfs.
    if not item.get('network') and item.get('prefix') == 'backbone.':
        network = 'student' if origin.network == 'teacher' else network
    return origin._replace(network=network)


def backbone_name(backbone: Mapping) -> str:
    """Return what to call a backbone, e.g. "ResNet-50" or "ViT-S-16"."""
    name = str(backbone.get('type')).split('.')[-1]
    if 'depth' in backbone:
        name += f'-{backbone["depth"]}'
    width = backbone.get('base_channels', 64)
    if width != 64:
        name += f'-w{width}'
    if isinstance(backbone.get('arch'), str):
        size = VIT_SIZES.get(backbone['arch'])
        patch = backbone.get('patch_size', 16)
        if name.endswith('VisionTransformer') and size:
            return f'ViT-{size}-{patch}'
        name += f'-{backbone["arch"]}'
    return name


def _recipe(model: Mapping, dataset: Mapping | None) -> dict[str, Any]:
    recipe = {}
    for transform in (dataset or {}).get('pipeline') or ():
        if transform.get('type') == 'MultiCrop':
            for name in ('num_local', 'local_scale'):
                if transform.get(name) is not None:
                    recipe[name] = transform[name]
    if model.get('search_neck'):
        backbone = model.get('backbone') or {}
        layers = model.get('search_layers') or backbone.get('out_indices')
        if layers is not None:
            recipe['search_layers'] = list(layers)
        search = model.get('search') or {}
        recipe['search'] = search.get('type', DEFAULT_SEARCH)
        recipe['search_views'] = model.get('search_views', 'all')
        head = model.get('head') or {}
        search_loss = head.get('search_loss') or {}
        others = head.get('loss_weight'), search_loss.get('global_weight')
        if others == (0, 0):
            recipe['search_alone'] = True
    return recipe
