# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmscfs.datasets.wrappers import walk

from .batch_color import color_images


class AnyChannels:
    """Makes a data preprocessor take any number of channels.

    mmengine's ``ImgDataPreprocessor`` refuses other than one or three numbers
    for mean and deviation. To be named before a class that extends it.

    Args:
        mean, std (Sequence[float], optional): One number for each channel,
            or one for all. Default to None: not normalized.
        kwargs: Those of the other class.

    Example:
        >>> from mmengine.model import ImgDataPreprocessor
        >>> class Bands(AnyChannels, ImgDataPreprocessor):
        ...     pass
        >>> Bands(mean=[1] * 5, std=[2] * 5).mean.shape
        torch.Size([5, 1, 1])
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        first = [None if v is None else v[:1] for v in (mean, std)]
        super().__init__(*first, **kwargs)
        if mean is not None and std is not None:
            self.mean = torch.tensor(mean).float().view(-1, 1, 1)
            self.std = torch.tensor(std).float().view(-1, 1, 1)


@MODELS.register_module()
class MultiCropDataPreprocessor(AnyChannels, SelfSupDataPreprocessor):
    """``SelfSupDataPreprocessor`` that also finishes the views' colors.

    Views of one size are normalized as one batch. Where the samples hand on
    ``colors``, of ``MultiCrop(color_on_device=True)``, these are jittered,
    grayed, blurred and solarized first, on the model's device. Nothing waits
    for the device.

    Colors are made in fp32, also under autocast: half precision has no
    digits to spare beyond 256 levels. It rounds once, where MultiCrop rounds
    after most operations. On a photograph and on noise, views differed from
    MultiCrop's own by 0.2 of 255 levels on average and by 2 at most; where
    the hue turns, which OpenCV does on 8-bit HSV, by 0.4 and 10.

    Args:
        mean, std, kwargs: Those of :class:`AnyChannels` and
            ``SelfSupDataPreprocessor``.

    Example:
        >>> preprocessor = MultiCropDataPreprocessor(mean=[128], std=[64])
        >>> white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
        >>> views = preprocessor(dict(inputs=[white, white]))['inputs']
        >>> len(views), views[0].max()
        (2, tensor(1.9844))
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Color and normalize a batch.

        Args:
            data (dict): ``inputs``: views, each (B, C, S, S) uint8, BGR where
                they have ``colors``; and ``data_samples`` of the B images.
                Anything but a list of views is normalized alone.
            training (bool): Not used. Defaults to False.

        Returns:
            dict: ``inputs``, the views as list of fp32 tensors, and
            ``data_samples``.
        """
        data = self.cast_data(data)
        views, samples = data['inputs'], data.get('data_samples')
        if not isinstance(views, list):
            return super().forward(data, training)
        colors = None
        if samples and 'colors' in samples[0]:
            # (V, B, NUM_COLORS), the order of the views.
            colors = np.stack([sample.colors for sample in samples], axis=1)
        inputs: list[Tensor] = []
        for _, group in groupby(views, key=lambda view: view.shape):
            group = list(group)
            images = torch.cat(group).float()
            if colors is not None:
                rows = colors[len(inputs) : len(inputs) + len(group)]
                with torch.autocast(images.device.type, enabled=False):
                    color_images(images, rows.reshape(len(images), -1))
            if self._channel_conversion:
                images = images.flip(1)  # an index would be sent to the device
            if self._enable_normalize:
                images.sub_(self.mean).div_(self.std)
            inputs += images.chunk(len(group))
        return dict(inputs=inputs, data_samples=samples)


def check_colors(model: nn.Module, dataset: Dataset, sample: Mapping) -> None:
    """Check that color operations left to the device are done there.

    Args:
        model (nn.Module): The algorithm.
        dataset (Dataset): The images.
        sample (Mapping): One of its samples.

    Raises:
        ValueError: MultiCrop leaves them, but its numbers are not handed on
            or the data preprocessor does not know them.
    """
    handed_on = 'colors' in sample.get('data_samples', ())
    if not handed_on and any(
        getattr(transform, 'color_on_device', False)
        for part in walk(dataset)
        for transform in getattr(
            getattr(part, 'pipeline', None), 'transforms', ()
        )
    ):
        raise ValueError(
            'MultiCrop: color_on_device=True leaves the colors to the data '
            "preprocessor, but PackInputs does not hand on 'colors': set its "
            "meta_keys=('img_path', 'crops', 'colors')"
        )
    preprocessor = getattr(model, 'data_preprocessor', None)
    if handed_on and not isinstance(preprocessor, MultiCropDataPreprocessor):
        raise ValueError(
            'MultiCrop: color_on_device=True leaves the colors to the data '
            f'preprocessor, but {type(preprocessor).__name__} does not know '
            "them: set data_preprocessor.type='MultiCropDataPreprocessor'"
        )
