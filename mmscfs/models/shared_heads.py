# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Parts of detectors. Needs mmdet, so ``import mmscfs`` leaves it out."""

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor

from mmscfs.compatibility import check_package

check_package('mmdet')

from mmdet.models import DetDataPreprocessor  # noqa: E402
from mmdet.models.backbones import ResNet  # noqa: E402
from mmdet.models.layers import ResLayer  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402

from .utils import AnyChannels  # noqa: E402

KAIMING = (
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
)


@MODELS.register_module()
class SharedResStage(BaseModule):
    """The last stage of a ResNet, run on each region of a C4 detector.

    It is mmdet's shared head ``ResLayer``, always trained, for a backbone of
    any width, and with the norm after it that MoCo's protocol adds. Its keys
    are those of the ResNet (``layer4.…``); only the new norm's (``norm.…``)
    are not in a pre-trained backbone.

    Args:
        depth (int): Depth of the ResNet.
        base_channels (int): Width of its first stage. Defaults to 64.
        norm_cfg (dict): Config of every norm. Defaults to batch norm.
        extra_norm (bool): Add a norm after the stage. Defaults to False.
        init_cfg (dict or list, optional): None initializes as mmdet's
            ``ResLayer`` does. Defaults to None.

    Raises:
        ValueError: No ResNet has this ``depth``.

    Example:
        >>> import torch
        >>> stage = SharedResStage(depth=50, extra_norm=True)
        >>> stage(torch.zeros(3, 1024, 14, 14)).shape
        torch.Size([3, 2048, 7, 7])
    """

    def __init__(
        self,
        depth: int,
        base_channels: int = 64,
        norm_cfg: dict | None = None,
        extra_norm: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        if depth not in ResNet.arch_settings:
            raise ValueError(
                f'SharedResStage: depth={depth} must be one of '
                f'{", ".join(map(str, ResNet.arch_settings))}'
            )
        super().__init__(init_cfg or list(KAIMING))
        norm_cfg = norm_cfg or dict(type='BN')
        block, counts = ResNet.arch_settings[depth]
        self.layer4 = ResLayer(
            block,
            inplanes=4 * base_channels * block.expansion,
            planes=8 * base_channels,
            num_blocks=counts[3],
            stride=2,
            norm_cfg=norm_cfg,
        )
        out_channels = 8 * base_channels * block.expansion
        self.norm = (
            build_norm_layer(norm_cfg, out_channels)[1] if extra_norm else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, c, h, w) features of regions into (n, 2c, h/2, w/2)."""
        x = self.layer4(x)
        return x if self.norm is None else self.norm(x)


@MODELS.register_module()
class BandsDetDataPreprocessor(AnyChannels, DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` for images of any number of channels.

    Only needed where the channels differ in mean or deviation; one number
    for all channels suits mmdet's, too.

    Args:
        mean, std, kwargs: Those of :class:`AnyChannels` and
            ``DetDataPreprocessor``.

    Example:
        >>> data_preprocessor = dict(
        ...     type='BandsDetDataPreprocessor',
        ...     mean=[90.0, 110.0, 80.0, 120.0],
        ...     std=[60.0, 55.0, 50.0, 60.0],
        ...     pad_mask=True,
        ...     pad_size_divisor=32,
        ... )
    """
