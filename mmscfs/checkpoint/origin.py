# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell how a checkpoint was pre-trained: from itself, or from its name."""

import argparse
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from .config_text import parse_config
from .layouts import find_backbone
from .loading import read_checkpoint
from .plain import to_count

# The paper's names of algorithms, by those in configs and in file names, lower
# case.
ALGORITHMS = {
    'scfs': 'SCFS',
    'dino': 'DINO',
    'mococo2': 'MoCo + CO2',
    'mocov2co2': 'MoCo v2 + CO2',
    'moco': 'MoCo',
    'mocov1': 'MoCo',
    'mocov2': 'MoCo v2',
    'mocov3': 'MoCo v3',
    'byol': 'BYOL',
    'swav': 'SwAV',
    'simclr': 'SimCLR',
    'simsiam': 'SimSiam',
    'barlowtwins': 'Barlow Twins',
    'densecl': 'DenseCL',
}
# What some files write in several words.
SPELLINGS = (
    (r'moco[\W_]?v2[\W_]co2', 'mocov2co2'),
    (r'moco[\W_]?(v1)?[\W_]co2', 'mococo2'),
    (r'moco[\W_](v[123])', r'moco\1'),
    (r'barlow[\W_]twins', 'barlowtwins'),
)
# The sizes that all projects agree on, by mmpretrain's names.
VIT_SIZES = {
    'deit-tiny': 'Ti',
    'deit-small': 'S',
    'deit-base': 'B',
    'base': 'B',
    'large': 'L',
}
TORCHVISION_FILE = r'resnet\d+-[0-9a-f]{8}\.'


class Origin(NamedTuple):
    """How a backbone was pre-trained; None is what is not known.

    Attributes:
        method (str | None): "supervised", or an algorithm, e.g. "SCFS".
        epochs (int | None): Epochs of pre-training.
        batch_size (int | None): Images in a step, of all processes.
        data (str): Names of the data sets, "" if unknown.
        network (str | None): "teacher" or "student": which of two is taken
            by default, or was exported.
        recipe (dict): What the paper's ablations vary, from the config:
            ``num_local``, ``local_scale``, ``search_layers``, ``search``,
            ``search_views``, and ``search_alone`` if all other terms weigh
            nothing.
        label (str): Method and data in words, or else the file's name.
    """

    method: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    data: str = ''
    network: str | None = None
    recipe: dict[str, Any] = {}
    label: str = '-'


def pretrained_init(backbone: Mapping) -> Mapping | None:
    """Return the ``init_cfg`` of a backbone that loads a checkpoint."""
    settings = backbone.get('init_cfg') or []
    for item in [settings] if isinstance(settings, Mapping) else settings:
        if str(item.get('type')).split('.')[-1] == 'Pretrained':
            return item
    return None


def taken_network(init_cfg: Mapping, origin: Origin) -> str | None:
    """Return which of a checkpoint's networks an ``init_cfg`` takes."""
    if init_cfg.get('network'):
        return init_cfg['network']
    # mmengine's own initialiser, on a raw checkpoint of ours.
    if init_cfg.get('prefix') == 'backbone.' and origin.method in (
        'SCFS',
        'DINO',
    ):
        return 'student'
    return origin.network


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


@cache
def read_origin(path: str) -> Origin:
    """Read who pre-trained a checkpoint, and how.

    Never fails: what a file does not tell, or one that is gone or damaged,
    is taken from its name.

    Args:
        path (str): A file, or an address such as "torchvision://resnet50".
    """
    if '://' in path:
        scheme, name = path.split('://', 1)
        if scheme == 'torchvision':
            return Origin('supervised', label='supervised (torchvision)')
        if name.startswith('detectron2/'):
            return Origin('supervised', label=f'supervised ({name})')
        return Origin(label=path)
    checkpoint: Mapping[str, Any] = {}
    meta, origin, layout, network = {}, None, '', None
    if Path(path).is_file():
        try:
            checkpoint = read_checkpoint(path)
            if isinstance(checkpoint.get('meta'), Mapping):
                meta = checkpoint['meta']
            if isinstance(meta.get('cfg'), str):
                cfg = parse_config(meta['cfg'])
                origin = origin_of(cfg, meta.get('world_size'))
            found = find_backbone(checkpoint)
            layout, network = found.layout, found.network
        except (AttributeError, TypeError, ValueError) as error:
            # A config's text may hold anything at all.
            print_log(
                f'{path}: {error}; what wrote it is taken from its name',
                logger='current',
                level=logging.WARNING,
            )
    source = str(meta.get('source', Path(path).name))
    name = f'{Path(path).parent.name}/{source}'
    if origin is None:
        text = f'{layout} {name}'.lower()
        for spelling, word in SPELLINGS:
            text = re.sub(spelling, word, text)
        words = re.split(r'[^a-z0-9]+', text)
        origin = Origin(
            next((ALGORITHMS[w] for w in words if w in ALGORITHMS), None),
            batch_size=_release_batch(checkpoint.get('args')),
            data='coco' if 'coco' in words else '',
        )
    if re.match(TORCHVISION_FILE, source):
        origin = origin._replace(method='supervised')
    epochs = to_count(meta.get('epoch')) or to_count(checkpoint.get('epoch'))
    if not epochs:
        found = re.search(r'epoch_(\d+)', name) or re.search(
            r'[-_](\d+)ep?(?![a-z0-9])', name
        )
        epochs = int(found[1]) if found else None
    label = origin.method or name
    return origin._replace(
        epochs=epochs,
        network=meta.get('network', network),
        label=f'{label} ({origin.data})' if origin.data else label,
    )


def origin_of(cfg: Mapping, world_size: int | str | None = None) -> Origin:
    """Read from a config how it pre-trains.

    Args:
        cfg (Mapping): A dumped config.
        world_size (int | str, optional): Number of processes of the run.
            Defaults to None: unknown, and so is the batch size.
    """
    model = cfg.get('model') or {}
    loader = cfg.get('train_dataloader') or {}
    batch_size = None
    if world_size is not None and isinstance(loader.get('batch_size'), int):
        wrapper = cfg.get('optim_wrapper') or {}
        steps = int(wrapper.get('accumulative_counts', 1))
        batch_size = int(world_size) * loader['batch_size'] * steps
    roots = [Path(root).name for root in _data_roots(loader.get('dataset'))]
    return Origin(
        _method(model),
        batch_size=batch_size,
        data=', '.join(root for root in dict.fromkeys(roots) if root),
        recipe=_recipe(model, loader.get('dataset')),
    )


def _method(model: Mapping) -> str | None:
    """Return the algorithm of a model's config."""
    kind = model.get('type')
    if kind == 'ImageClassifier':
        return 'supervised'
    name = str(kind).lower()
    # Versions 1 and 2 are one class.
    if (model.get('neck') or {}).get('type') == 'MoCoV2Neck':
        name = {'moco': 'mocov2', 'mococo2': 'mocov2co2'}.get(name, name)
    return ALGORITHMS.get(name, kind)


def _data_roots(settings: Mapping | None) -> Iterator[str]:
    """Yield the folders of the data sets inside wrappers."""
    if not settings:
        return
    inner = settings.get('dataset') or settings.get('datasets')
    if not inner:
        yield str(settings.get('data_root', ''))
    for part in [inner] if isinstance(inner, Mapping) else inner or ():
        yield from _data_roots(part)


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
        recipe['search'] = search.get('type', 'SoftFeatureSearch')
        recipe['search_views'] = model.get('search_views', 'all')
        head = model.get('head') or {}
        search_loss = head.get('search_loss') or {}
        others = head.get('loss_weight'), search_loss.get('global_weight')
        if others == (0, 0):
            recipe['search_alone'] = True
    return recipe


def _release_batch(args: argparse.Namespace | None) -> int | None:
    """Return the batch size that the releases of DINO and SCFS store."""
    sizes: list[Any] = [
        getattr(args, name, None)
        for name in ('batch_size_per_gpu', 'world_size')
    ]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return sizes[0] * sizes[1]
