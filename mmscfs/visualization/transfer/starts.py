# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell what a detector's backbone started from, by its dumped config."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from mmscfs.checkpoint import find_backbone, parse_config, read_checkpoint
from mmscfs.datasets.detection_check import leaf_datasets

# Names of algorithms as they stand in file names, lower case.
ALGORITHMS = {
    'scfs': 'SCFS',
    'dino': 'DINO',
    'mococo2': 'MoCoCO2',
    'moco': 'MoCo',
    'mocov2': 'MoCo v2',
    'byol': 'BYOL',
    'swav': 'SwAV',
    'simclr': 'SimCLR',
    'densecl': 'DenseCL',
}
TORCHVISION_FILE = r'resnet\d+-[0-9a-f]{8}\.'


class Start(NamedTuple):
    """What a detector's backbone started from.

    Attributes:
        method (str): "random", "supervised", an algorithm, or "-".
        label (str): The same with more detail.
        epochs (str): Number of epochs of pre-training, "-" if unknown.
        data (str): Name of the data set of pre-training, "" if unknown.
    """

    method: str
    label: str
    epochs: str = '-'
    data: str = ''


def read_start(configs: Sequence[Mapping]) -> Start:
    """Read what a training started from, before any resumption.

    Args:
        configs (Sequence[Mapping]): The config of each of its sessions,
            oldest first.
    """
    cfg = next((c for c in reversed(configs) if not c.get('resume')), None)
    cfg = cfg or configs[0]
    if cfg.get('load_from') and not cfg.get('resume'):
        return Start('-', f'all of {Path(cfg["load_from"]).name}')
    backbone = cfg['model'].get('backbone')
    if backbone is None:
        return Start('-', '-')
    settings = backbone.get('init_cfg') or []
    if isinstance(settings, Mapping):
        settings = [settings]
    if backbone.get('pretrained'):  # mmdet's older setting
        settings = [dict(type='Pretrained', checkpoint=backbone['pretrained'])]
    for item in settings:
        if str(item.get('type')).split('.')[-1] != 'Pretrained':
            continue
        start = read_origin(item['checkpoint'])
        if item.get('network') == 'student' or (
            item.get('prefix') == 'backbone.'
            and start.method in ('SCFS', 'DINO')
        ):
            return start._replace(label=f'{start.label}, student')
        return start
    return Start('random', 'random')


@cache
def read_origin(path: str) -> Start:
    """Read who pre-trained a checkpoint, from it or else from its name."""
    if '://' in path:
        scheme, name = path.split('://', 1)
        if scheme == 'torchvision':
            return Start('supervised', 'supervised (torchvision)')
        if name.startswith('detectron2/'):
            return Start('supervised', f'supervised ({name})')
        return Start('-', path)
    checkpoint, meta, cfg, layout = {}, {}, None, ''
    if Path(path).is_file():
        try:
            checkpoint = read_checkpoint(path)
            meta = checkpoint.get('meta') or {}
            if isinstance(meta.get('cfg'), str):
                cfg = parse_config(meta['cfg'])
            else:
                layout = find_backbone(checkpoint).layout
        except ValueError as error:
            print_log(
                f'{path}: {error}; what wrote it is taken from its name',
                logger='current',
                level=logging.WARNING,
            )
    source = meta.get('source', Path(path).name)
    name = f'{Path(path).parent.name}/{source}'
    words = re.split(r'[^a-z0-9]+', f'{layout} {name}'.lower())
    if cfg is not None:
        method = (cfg.get('model') or {}).get('type', '-')
        data = ', '.join(pretraining_data(cfg))
    else:
        method = next((ALGORITHMS[w] for w in words if w in ALGORITHMS), '-')
        data = 'coco' if 'coco' in words else ''
    if method == 'ImageClassifier' or re.match(TORCHVISION_FILE, source):
        method = 'supervised'
    epochs = meta.get('epoch') or checkpoint.get('epoch')
    if not isinstance(epochs, int):
        found = re.search(r'epoch_(\d+)', name) or re.search(
            r'[-_](\d+)ep?(?![a-z0-9])', name
        )
        epochs = found[1] if found else '-'
    label = method if method != '-' else name
    label += f' ({data})' if data else ''
    return Start(method, label, str(epochs), data)


def pretraining_data(cfg: Mapping) -> list[str]:
    """Return the names of the data sets that a config pre-trains on."""
    loader = cfg.get('train_dataloader') or {}
    leaves = leaf_datasets(loader.get('dataset'), '')
    roots = [Path(str(d.get('data_root', ''))).name for _, d in leaves]
    return [root for root in dict.fromkeys(roots) if root]
