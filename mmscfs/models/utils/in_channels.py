# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PROBE_SIZE = 224  # px; what backbones are made for


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and every part back as it was after it."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@torch.no_grad()
def outputs_of_blank(
    backbone: nn.Module,
    shape: tuple[int, ...],
    remedy: str = 'change global_size or local_size of MultiCrop',
) -> Sequence[Tensor]:
    """Return a backbone's outputs for one blank image, in evaluation mode.

    Args:
        backbone (nn.Module): Its mode, statistics and weights stay.
        shape (tuple[int, ...]): (channels, height, width) of the image.
        remedy (str): What to do if it cannot be taken, for the error.
            Defaults to that for a view.

    Raises:
        ValueError: The backbone cannot take it.
    """
    blank = next(backbone.parameters()).new_zeros(1, *shape)
    try:
        with evaluating(backbone):
            return backbone(blank)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f'the backbone {type(backbone).__name__} cannot take views of '
            f'shape {shape}: {error}; {remedy}'
        ) from error


def input_channels(backbone: nn.Module) -> int | None:
    """Return the channels that a backbone's first convolution takes."""
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    return first.in_channels if first else None


def check_channels(model: nn.Module, channels: int) -> None:
    """Check a model against the number of channels of its images.

    Args:
        model (nn.Module): With ``backbone`` and ``data_preprocessor``.
        channels (int): Of an image.

    Raises:
        ValueError: Backbone or data preprocessor are made for others.
    """
    backbone: Any = getattr(model, 'backbone', None)
    wanted = input_channels(backbone) if backbone is not None else None
    if wanted not in (None, channels):
        raise ValueError(
            f'the images have {channels} channels, but model.backbone takes '
            f'{wanted}: set model.backbone.in_channels={channels}, and mean '
            'and std of data_preprocessor to one number, or one for each '
            'channel'
        )
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    for name in ('mean', 'std'):
        numbers = getattr(preprocessor, name, None)
        if numbers is not None and len(numbers) not in (1, channels):
            raise ValueError(
                f'data_preprocessor.{name} has {len(numbers)} numbers, but '
                f'the images have {channels} channels: give one for each '
                'channel, or one for all'
            )
    if channels != 3 and getattr(preprocessor, '_channel_conversion', False):
        raise ValueError(
            'data_preprocessor.to_rgb=True exchanges red and blue, but the '
            f'images have {channels} channels: set to_rgb=False'
        )


def output_channels(backbone: nn.Module) -> list[int]:
    """Return the channels of a backbone's outputs, by a blank image.

    Raises:
        ValueError: The backbone cannot take one of 224 px, or its outputs
            are neither maps nor vectors.
    """
    outputs = outputs_of_blank(
        backbone,
        (input_channels(backbone) or 3, PROBE_SIZE, PROBE_SIZE),
        'so its channels are not known: set in_channels in model.neck and '
        'model.search_neck',
    )
    if not all(getattr(x, 'ndim', None) in (2, 4) for x in outputs):
        shapes = [
            tuple(x.shape) if hasattr(x, 'shape') else type(x).__name__
            for x in outputs
        ]
        raise ValueError(
            f'the backbone {type(backbone).__name__} gives {shapes}, where '
            'maps (B, C, H, W) or vectors (B, C) are needed: change '
            'model.backbone.out_type, or choose another backbone'
        )
    return [output.shape[1] for output in outputs]


def with_in_channels(
    neck: Mapping, backbone: nn.Module, outputs: Sequence[int] | None = None
) -> Mapping:
    """Return a neck's config with ``in_channels``, found in the backbone.

    Args:
        neck (Mapping): Returned as it is where it has ``in_channels``.
        backbone (nn.Module): A backbone.
        outputs (Sequence[int], optional): Places of the outputs that the
            neck takes, for a list of channels. Defaults to None: the last
            output, for a number.
    """
    if neck.get('in_channels') is not None:
        return neck
    channels = output_channels(backbone)
    if outputs is None:
        return {**neck, 'in_channels': channels[-1]}
    return {**neck, 'in_channels': [channels[i] for i in outputs]}
