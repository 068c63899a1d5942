# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell what a detector's backbone started from, by its dumped config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmscfs.checkpoint import pretrained_init, read_origin, taken_network


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
        return Start('-', f'all of {Path(str(cfg["load_from"])).name}')
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    if not isinstance(backbone, Mapping):
        return Start('-', '-')
    if backbone.get('pretrained'):  # mmdet's older setting
        backbone = dict(
            init_cfg=dict(type='Pretrained', checkpoint=backbone['pretrained'])
        )
    found = pretrained_init(backbone)
    if found is None:
        return Start('random', 'random')
    origin = read_origin(found['checkpoint'])
    label = origin.label
    if taken_network(found, origin) == 'student':
        label += ', student'
    return Start(
        origin.method or '-', label, str(origin.epochs or '-'), origin.data
    )
