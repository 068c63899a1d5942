# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Initialize a backbone from a checkpoint, completely or not at all."""

import re
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS, Registry
from torch import nn

from .layouts import (
    FoundBackbone,
    find_backbone,
    resnet_settings,
    resnet_stages,
)
from .loading import check_numbers, name_differences, naming, read_checkpoint

# A child registry, so that the initializer can be called "Pretrained" beside
# mmengine's: backbones of mmdet and mmpretrain look for that word before they
# overwrite weights, e.g. with zero-initialized residual branches.
INITIALIZERS = Registry(
    'weight initializer',
    parent=WEIGHT_INITIALIZERS,
    scope='mmscfs',
    locations=['mmscfs.checkpoint'],
)

STEMS = ('conv1', 'stem')  # of ResNets
# What a run with --pretrained has read before it starts, by checkpoint and
# network: its modules load it, and a hook checks them and removes it.
KEPT: dict[tuple[str, str | None], FoundBackbone] = {}


@INITIALIZERS.register_module(name='Pretrained')
class PretrainedBackbone:
    """Initialize a backbone, or the part of one, from any known checkpoint.

    In a config: ``init_cfg=dict(type='Pretrained', _scope_='mmscfs',
    checkpoint=...)``, for a backbone or for the last stage that C4 detectors
    keep in ``roi_head.shared_head``. See :func:`find_backbone` for the
    layouts. Every tensor of the module must come from the checkpoint, in its
    shape, but for what a C4 shared head adds to its stage; of the checkpoint,
    only heads and whole stages that the module lacks may be left over.

    Args:
        checkpoint (str): Its path, or a name such as
            ``mmscfs::scfs_resnet18-w16_digit-cards``.
        network (str, optional): "teacher" or "student"; None takes the
            teacher where there is one. Defaults to None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or unsafe, or does not fit.
    """

    def __init__(self, checkpoint: str, network: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.network = network

    def __call__(self, module: nn.Module) -> None:
        """Initialize ``module``."""
        summary = load_backbone(module, self.checkpoint, self.network)
        print_log(summary, logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=summary)


def load_backbone(
    module: nn.Module, path: str | Path, network: str | None = None
) -> str:
    """Load a checkpoint's backbone into a module, strictly.

    Returns:
        str: One line that says what was loaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As :class:`PretrainedBackbone`; nothing was loaded.
    """
    found = KEPT.get((str(path), network))
    checkpoint = {} if found else read_checkpoint(path)
    with naming(path):
        found = found or find_backbone(checkpoint, network)
        return f'{path}: {load_found(module, found)}'


def load_found(module: nn.Module, found: FoundBackbone) -> str:
    """Load a backbone that :func:`find_backbone` found.

    Returns:
        str: What was loaded, in words.

    Raises:
        ValueError: A tensor is missing, left over or of another shape, its
            numbers are not those of weights, or the module puts its strides
            elsewhere; nothing was loaded.
    """
    name = type(module).__name__
    stages = resnet_stages(found.state)
    if (
        any(getattr(m, 'style', None) == 'caffe' for m in module.modules())
        and stages is not None
        and stages[0] == 'bottleneck'
    ):
        raise ValueError(
            f"{name} has style='caffe' (stride in the first 1x1 "
            f'convolution), but a {found} checkpoint needs style='
            "'pytorch' (stride in the 3x3), and RGB input: start from a "
            "config without 'caffe' in its name, or set style='pytorch', "
            'frozen_stages=-1 and model.data_preprocessor with '
            'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], '
            'bgr_to_rgb=True'
        )
    own = module.state_dict()
    # A C4 detector splits a ResNet: its backbone lacks the last stage, and
    # its shared head is that stage, perhaps with a new norm.
    parts = list(dict.fromkeys(map(_part, own)))
    is_stage = any(map(_is_stage, parts)) and not {*parts} & {*STEMS}
    new = [part for part in parts if is_stage and not _is_stage(part)]
    own = {key: v for key, v in own.items() if _part(key) not in new}
    # Number of training batches: without influence, and old files lack it.
    needed = {
        key: value
        for key, value in own.items()
        if key in found.state or not key.endswith('num_batches_tracked')
    }
    given = {
        key: value
        for key, value in found.state.items()
        if key in own
        or _part(key) in parts
        or not (is_stage or _is_stage(_part(key)))
    }
    # A vision transformer resizes the position embedding itself.
    if differences := name_differences(needed, given, ('pos_embed',)):
        raise ValueError(
            f'its {found} backbone{_describe(stages)} does not fit the '
            f'{name}{_describe(resnet_stages(own))}: tensors {differences}. '
            + (
                f'Set {_settings(found)}'
                if needed.keys() & given.keys()
                else f'No name is one of the {name}: take a model of the type '
                'that was pre-trained, or save its weights by the names of '
                'torchvision or timm'
            )
        )
    check_numbers(own, found.state)
    state = {key: value for key, value in found.state.items() if key in own}
    before = {key: value.clone() for key, value in own.items()}
    try:
        module.load_state_dict(state, strict=False)
    except (AssertionError, RuntimeError) as error:
        # It copies what fits before it raises.
        module.load_state_dict(before, strict=False)
        raise ValueError(f'{name} refused the weights: {error}') from error
    rest = sorted({_part(key) for key in found.state.keys() - own.keys()})
    notes = [f'layout: {found}']
    for word, parts in (('not needed', [*rest, *found.heads]), ('new', new)):
        if parts:
            notes.append(f'{word}: {", ".join(parts)}')
    return f'loaded {len(state)} tensors into {name} ({"; ".join(notes)})'


def _part(key: str) -> str:
    return key.split('.')[0]


def _is_stage(part: str) -> bool:
    return re.fullmatch(r'layer\d', part) is not None


def _describe(stages: tuple[str, list[int]] | None) -> str:
    """Say which ResNet it is."""
    if stages is None:
        return ''
    block, counts = stages
    return f' ({block} blocks {counts})'


def _settings(found: FoundBackbone) -> str:
    """Say what to set for a backbone of these weights."""
    settings = resnet_settings(found.state)
    if settings is None:
        return 'the depth and widths that it was pre-trained with'
    channels = settings.pop('channels')
    words = ', '.join(f'{key}={value}' for key, value in settings.items())
    return f"{words} there, and in_channels={channels} in a detector's FPN"
