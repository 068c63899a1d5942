# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..losses.functional import at_least_fp32
from ..search import AttendedMaps, global_average_pool
from .norm_1d import NORM_1D


class SearchProjector(BaseModule):
    """Project one layer's maps: three convolutions, then two FC layers.

    A residual bottleneck (1x1 C -> mid, 3x3, 1x1 mid -> C, each with batch
    norm; add the input; ReLU), global average pool, FC C -> hidden, norm,
    ReLU, FC hidden -> out, norm, L2 normalisation.

    Args:
        in_channels (int): Channels C of the layer.
        mid_channels (int): Channels inside the bottleneck.
        hidden_channels (int): Width between the FC layers.
        out_channels (int): Width of the output.
        norm_cfg (dict): Batch norm of the convolutions; its 1-D form follows
            the FC layers.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        hidden_channels: int,
        out_channels: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        norm_1d = dict(norm_cfg, type=NORM_1D[norm_cfg['type']])
        self.bottleneck = nn.Sequential(
            ConvModule(in_channels, mid_channels, 1, norm_cfg=norm_cfg),
            ConvModule(
                mid_channels, mid_channels, 3, padding=1, norm_cfg=norm_cfg
            ),
            ConvModule(
                mid_channels, in_channels, 1, norm_cfg=norm_cfg, act_cfg=None
            ),
        )
        # Norms follow, so biases would do nothing.
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden_channels, bias=False),
            build_norm_layer(norm_1d, hidden_channels)[1],
            nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, out_channels, bias=False),
            build_norm_layer(norm_1d, out_channels)[1],
        )

    def forward(self, maps: Tensor | AttendedMaps) -> Tensor:
        """Project maps (B, C, H, W) to unit vectors (B, out_channels)."""
        if isinstance(maps, AttendedMaps):
            parts: Iterable[ConvModule] = self.bottleneck
            reduce, *others = parts
            x = maps.weigh(reduce.conv(maps.flat_maps))
            x = reduce.activate(reduce.norm(x))
            for layer in others:
                x = layer(x)
            x = maps.add_to_(x)
        else:
            x = self.bottleneck(maps).add_(maps)
        x = self.mlp(global_average_pool(F.relu(x, inplace=True)))
        return F.normalize(at_least_fp32(x), dim=-1)


@MODELS.register_module()
class FeatureSearchNeck(BaseModule):
    """One ``SearchProjector`` for each search layer (SCFS Eq. 8).

    Args:
        in_channels (Sequence[int]): Channels of each search layer, shallow
            to deep, e.g. [512, 1024, 2048] for ResNet-50's Res2-Res4; SCFS
            fills it in.
        mid_channels (int): Channels of the bottleneck. Defaults to 256.
        hidden_channels (int): Width between the FC layers. Defaults to 2048.
        out_channels (int): Width D of the outputs. Defaults to 256.
        norm_cfg (dict): Batch norm: 'BN' or 'SyncBN'. Defaults to 'BN',
            which the runner turns into SyncBN on several GPUs.
        init_cfg (dict | list, optional): Defaults to None: PyTorch's own
            initial values.

    Raises:
        ValueError: A size is not positive, or the norm is no batch norm.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        mid_channels: int = 256,
        hidden_channels: int = 2048,
        out_channels: int = 256,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        if norm_cfg.get('type') not in NORM_1D:
            raise ValueError(
                f'FeatureSearchNeck: norm_cfg={dict(norm_cfg)} must have '
                f'type {" or ".join(map(repr, NORM_1D))}'
            )
        if not in_channels:
            raise ValueError(
                'FeatureSearchNeck: in_channels=[] must name the channels of '
                'at least one search layer'
            )
        sizes = dict(
            mid_channels=mid_channels,
            hidden_channels=hidden_channels,
            out_channels=out_channels,
        )
        for name, size in [
            *sizes.items(),
            *(('in_channels', channels) for channels in in_channels),
        ]:
            if size < 1:
                raise ValueError(
                    f'FeatureSearchNeck: {name}={size} must be >= 1'
                )
        self.out_channels = out_channels
        self.projectors = ModuleList(
            SearchProjector(channels, norm_cfg=norm_cfg, **sizes)
            for channels in in_channels
        )

    def forward(self, maps: Sequence[Tensor | AttendedMaps]) -> list[Tensor]:
        """Project one map a layer.

        Args:
            maps (Sequence[Tensor | AttendedMaps]): Maps (B, C_i, H_i, W_i),
                in the order of ``in_channels``; B = G N B for what N views
                found in G.

        Returns:
            list[Tensor]: Unit vectors (B, D), one tensor a layer.
        """
        self.check_layers(
            [m.flat_maps if isinstance(m, AttendedMaps) else m for m in maps]
        )
        return [
            projector(layer_maps)
            for projector, layer_maps in zip(
                self.projectors, maps, strict=True
            )
        ]

    def check_layers(self, maps: Sequence[Tensor]) -> None:
        """Check that the search layers are those that the neck was made for.

        Raises:
            ValueError: Their number or channels differ, or one is no map.
        """
        expected = [p.in_channels for p in self.projectors]
        found = [layer.shape[1] for layer in maps]
        shapes = [tuple(layer.shape) for layer in maps]
        if any(layer.ndim != 4 for layer in maps):
            raise ValueError(
                'FeatureSearchNeck needs maps (B, C, H, W), but the search '
                f'layers of the backbone have shapes {shapes}: choose others '
                'by model.search_layers, or have the backbone give maps '
                '(ConvNeXt: gap_before_final_norm=False; vision '
                "transformer: type='SearchVisionTransformer')"
            )
        if expected != found:
            raise ValueError(
                f'FeatureSearchNeck: in_channels={expected} but the search '
                f'layers of the backbone have shapes {shapes}: leave '
                'model.search_neck.in_channels out, or change '
                'model.search_layers'
            )
