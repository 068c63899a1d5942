# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Start any model that has a backbone from a pre-training checkpoint."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import (
    FoundBackbone,
    find_backbone,
    load_found,
    naming,
    parse_config,
    read_checkpoint,
    read_data_preprocessor,
    read_meta,
    resnet_settings,
)
from mmscfs.checkpoint.pretrained import KEPT
from mmscfs.datasets.wrappers import leaf_datasets
from mmscfs.results import read_origin
from mmscfs.settings.variables import nodes

from .meeting import on_first_process
from .runner_access import unwrapped_model

# What a model initializes from a backbone: mmdet's C4 detectors keep its last
# stage in roi_head.shared_head.
PLACES = ('backbone', 'shared_head')
# How the releases were pre-trained, and checkpoints that do not say.
INPUT = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    channel_order='RGB',
)


def pretrained_places(
    model: ConfigDict, path: str = 'model'
) -> Iterator[tuple[str, ConfigDict]]:
    """Yield path and config of every part that starts from a backbone.

    At any depth of a model's config, e.g. "model.roi_head.shared_head".
    """
    for key, part in model.items():
        if isinstance(part, dict) and key in PLACES and 'type' in part:
            yield f'{path}.{key}', part
        elif isinstance(part, dict):
            yield from pretrained_places(part, f'{path}.{key}')


def start_from(
    cfg: Config, checkpoint: str, network: str | None = None
) -> None:
    """Make a config start from a checkpoint, after trying that it fits.

    Sets ``init_cfg`` of every part that ``pretrained_places`` names, and
    adds ``PretrainedGuardHook``, which checks the started run. The file is
    read only here, by process 0, which sends the others the backbone: it
    stays in memory until the hook has checked.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str): Any that :func:`find_backbone` knows.
        network (str, optional): "teacher" or "student"; None takes the
            teacher where there is one. Defaults to None.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It does not fit, the model has no backbone, its input is
            not what the backbone was trained on, or ``load_from`` would
            overwrite it all.
    """
    if cfg.get('load_from') and not cfg.get('resume'):
        raise ValueError(
            f'load_from={cfg.load_from!r} would overwrite what --pretrained '
            'loads: leave out one of them'
        )
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    places = dict(pretrained_places(cfg.model))
    for part in places.values():
        part.pop('pretrained', None)
        part.init_cfg = None
    KEPT[checkpoint, network] = on_first_process(
        read_fitting, cfg, checkpoint, network
    )
    for part in places.values():
        part.init_cfg = dict(
            type='Pretrained', _scope_='mmscfs', checkpoint=checkpoint
        )
        if network is not None:
            part.init_cfg.network = network
    guard = dict(
        type='mmpretrain.PretrainedGuardHook',
        checkpoint=checkpoint,
        network=network,
        places=[path.removeprefix('model.') for path in places],
    )
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), guard]


def read_fitting(
    cfg: Config, checkpoint: str, network: str | None
) -> FoundBackbone:
    """Read a backbone, and try that it fits all that starts from it.

    Arguments and errors are those of :func:`start_from`.
    """
    content = read_checkpoint(checkpoint)
    with naming(checkpoint):
        found = find_backbone(content, network)
        check_input(cfg, pretraining_input(content))
        check_values(cfg, content)
    places = dict(pretrained_places(cfg.model))
    if 'model.backbone' not in places and not any(
        path.endswith('.backbone') for path in places
    ):
        raise ValueError(
            f'--pretrained: model={cfg.model.type} has no backbone in its '
            'config'
        )
    for path, part in places.items():
        try:
            load_found(MODELS.build(part), found)
        except ValueError as error:
            raise ValueError(
                f'--pretrained {checkpoint} for {path}: {error}'
            ) from error
    check_neck(cfg.model, resnet_settings(found.state))
    read_origin(checkpoint, content)  # for ResultFileHook
    return found


def check_neck(model: ConfigDict, settings: Mapping | None) -> None:
    """Check that an FPN takes the widths of the ResNet before it.

    Raises:
        ValueError: It takes others, which a convolution would refuse in the
            first step without naming a setting.
    """
    neck = model.get('neck')
    if (
        settings is None
        or not isinstance(neck, ConfigDict)
        or str(neck.get('type')).split('.')[-1] != 'FPN'
    ):
        return
    stages = model.backbone.get('out_indices', (0, 1, 2, 3))
    channels = [settings['channels'][stage] for stage in stages]
    if [*neck.in_channels] != channels:
        raise ValueError(
            f'model.neck.in_channels={[*neck.in_channels]}, but the stages '
            f'of the backbone have {channels} channels: set '
            f'model.neck.in_channels={channels}'
        )


@HOOKS.register_module()
class PretrainedGuardHook(Hook):
    """Check, before a run's first iteration, that it starts from weights.

    Some backbones overwrite or ignore what ``init_cfg`` loads. A run that is
    resumed is not checked: its weights have moved on.

    Args:
        checkpoint (str): The pre-training checkpoint.
        places (Sequence[str]): The modules that start from it, e.g.
            "backbone" and "roi_head.shared_head".
        network (str, optional): "teacher", "student" or None, as
            :func:`find_backbone` takes it. Defaults to None.
    """

    def __init__(
        self,
        checkpoint: str,
        places: Sequence[str],
        network: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.places = places
        self.network = network

    def before_train(self, runner: Runner) -> None:
        """Compare the model with the checkpoint, unless it was resumed.

        Raises:
            RuntimeError: A module does not hold the checkpoint's weights.
        """
        if runner.iter > 0:
            KEPT.pop((self.checkpoint, self.network), None)
        else:
            self.before_test(runner)

    def before_test(self, runner: Runner) -> None:
        """Compare the model with the checkpoint, and free its memory.

        Raises:
            RuntimeError: As :meth:`before_train`.
        """
        found = KEPT.pop((self.checkpoint, self.network), None)
        if found is None:  # a config that was dumped by such a run
            found = find_backbone(
                read_checkpoint(self.checkpoint), self.network
            )
        for place in self.places:
            module = unwrapped_model(runner).get_submodule(place)
            differing = [
                key
                for key, value in module.state_dict().items()
                if key in found.state
                and value.shape == found.state[key].shape
                and not torch.equal(
                    value.cpu(), found.state[key].to(value.dtype)
                )
            ]
            if differing:
                raise RuntimeError(
                    f'model.{place} ({type(module).__name__}) does not hold '
                    f'the weights of {self.checkpoint}: {len(differing)} '
                    f'tensors differ (e.g. {differing[0]}), because its '
                    'init_weights ignores init_cfg. Export the backbone and '
                    'use its own loading option'
                )


def pretraining_input(checkpoint: Mapping) -> dict:
    """Return the ``mean``, ``std`` and ``channel_order`` of a pre-training.

    From the metadata of an exported file, or the config in a raw checkpoint.

    Raises:
        ValueError: They are not valid.
    """
    meta = read_meta(checkpoint)
    settings = meta.get('data_preprocessor')
    if settings is None and isinstance(meta.get('cfg'), str):
        settings = read_data_preprocessor(meta['cfg'])
    if not settings:
        return INPUT
    try:
        if isinstance(settings, str):  # in a safetensors file
            settings = json.loads(settings)
        mean, std = (
            [float(value) for value in settings[name]]
            for name in ('mean', 'std')
        )
        order = str(settings['channel_order'])
        is_valid = all(map(math.isfinite, [*mean, *std])) and min(std) > 0
        if (
            not is_valid
            or order not in ('RGB', 'BGR')
            or len({len(mean), len(std)} - {1}) > 1
        ):
            raise ValueError(f'{mean}, {std}, {order}')
        return dict(mean=mean, std=std, channel_order=order)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            "the checkpoint's meta.data_preprocessor lacks a valid mean, std "
            f'or channel_order ({type(error).__name__}: {error}): export it '
            'again from the checkpoint of its pre-training'
        ) from error


def check_input(cfg: Config, expected: Mapping) -> None:
    """Check that the model gets the images that the backbone knows.

    Raises:
        ValueError: Its data preprocessor swaps the channels or scales them
            differently, or nothing normalizes the images.
    """
    where, settings = normalization(cfg)
    to_rgb = settings.get('bgr_to_rgb') or settings.get('to_rgb')
    given = dict(
        mean=[float(v) for v in settings.get('mean') or [0, 0, 0]],
        std=[float(v) for v in settings.get('std') or [1, 1, 1]],
        channel_order='RGB' if to_rgb else 'BGR',
    )
    # One number is for all channels.
    channels = max(len(v) for v in (given['mean'], expected['mean']))
    if spread_input(given, channels) != spread_input(expected, channels):
        raise ValueError(
            f'{where} has {describe_input(given)}, but the backbone was '
            f'trained on {describe_input(expected)}: set those '
            'with bgr_to_rgb=True for RGB, or start from a config without '
            "'caffe' in its name"
        )


def spread_input(settings: Mapping, channels: int) -> tuple:
    """Return how images are normalized, a number for each channel."""
    mean, std = (
        values * channels if len(values) == 1 else values
        for values in (settings['mean'], settings['std'])
    )
    return mean, std, settings['channel_order']


def check_values(cfg: Config, checkpoint: Mapping) -> None:
    """Warn if images get other values than they had in the pre-training."""
    text = read_meta(checkpoint).get('cfg')
    if not isinstance(text, str):
        return
    try:
        expected = value_range(parse_config(text))
    except (AttributeError, TypeError, ValueError):
        return  # not a config of ours
    given = value_range(cfg)
    # Tuples are lists in a config's text.
    texts = [json.dumps(v, sort_keys=True) for v in (given, expected)]
    if texts[0] != texts[1]:
        print_log(
            f'LoadImage of this config has value_range={given}, that of the '
            f'pre-training had {expected}: the backbone sees values that it '
            'was not trained on. Set the same one in every pipeline',
            logger='current',
            level=logging.WARNING,
        )


def value_range(cfg: Mapping) -> Any:
    """Return the ``value_range`` of a config's images; None if it has none."""
    for step in steps_of(cfg):
        if 'LoadImage' in str(step.get('type')):
            return step.get('value_range')
    return None


def steps_of(cfg: Mapping) -> Iterator[Mapping]:
    """Yield the transforms that make a config's images."""
    loader = cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}
    for _, leaf in leaf_datasets(loader.get('dataset')):
        yield from leaf.get('pipeline') or ()


def normalization(cfg: Config) -> tuple[str, Mapping]:
    """Return what normalizes a model's images, and its settings.

    Its data preprocessor, which may lack mean and std, or a transform
    (``Normalize`` in a pipeline of mmdet's older form).

    Raises:
        ValueError: Both do.
    """
    where = 'model.data_preprocessor'
    whole = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    found = None
    for _, part in nodes(whole):
        # Of semi-supervised detectors there is one within another.
        if isinstance(part, Mapping) and part.get('mean') is not None:
            found = part
    for step in steps_of(cfg):
        if str(step.get('type')).split('.')[-1] != 'Normalize':
            continue
        if found:
            raise ValueError(
                f'{where} has a mean, and the pipeline Normalize: the images '
                'would be normalized twice. Remove one'
            )
        return 'Normalize of the pipeline', {'to_rgb': True, **step}
    return where, found or whole or {}


def describe_input(settings: Mapping) -> str:
    """Say how images are normalized."""
    return (
        f'{settings["channel_order"]} input of mean={settings["mean"]}, '
        f'std={settings["std"]}'
    )
