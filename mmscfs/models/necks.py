# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Projectors: DINO's, one for each search layer, and those of classifiers."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .losses import LazyCosineLogits, at_least_fp32
from .search import LazyAttendedMaps, global_average_pool

# The batch norm of vectors for that of maps, by the names in configs.
NORM_1D = {'BN': 'BN1d', 'BN2d': 'BN1d', 'SyncBN': 'SyncBN'}


class Prototypes(nn.Module):
    """Weight-normalized linear layer with the gain fixed at 1.

    Its inputs are unit vectors, so its outputs are cosines in [-1, 1].

    Args:
        in_channels (int): Width C of the input.
        num_prototypes (int): Number K of prototypes.

    Example:
        >>> prototypes = Prototypes(in_channels=2, num_prototypes=1)
        >>> _ = nn.init.constant_(prototypes.weight, 5.0)
        >>> prototypes(torch.tensor([[[0.6, 0.8]]])).compute()
        tensor([[[0.9899]]], grad_fn=<DivBackward0>)
    """

    def __init__(self, in_channels: int, num_prototypes: int) -> None:
        super().__init__()
        # A plain linear layer's initial weights, as in DINO's release.
        linear = nn.Linear(in_channels, num_prototypes, bias=False)
        self.weight = linear.weight

    def forward(self, embeddings: Tensor) -> LazyCosineLogits:
        """Map unit vectors (V, B, C) to cosines (V, B, K), on demand.

        embeddings @ (weight / lengths).T, where the products are divided
        instead of the prototypes.
        """
        weight = at_least_fp32(self.weight.detach())
        lengths = torch.linalg.vector_norm(weight, dim=-1).clamp_min(1e-12)
        return LazyCosineLogits(embeddings, self.weight, lengths)


@MODELS.register_module()
class DINONeck(BaseModule):
    """DINO's projector: an MLP, L2 normalization and prototypes.

    With the defaults: linear C -> 2048, GELU, 2048 -> 2048, GELU,
    2048 -> 256, normalize, 65536 prototypes. That is the "four-layer MLP" of
    SCFS section 3.4.

    Args:
        in_channels (int): Channels C of the backbone's last output; DINO
            and SCFS fill it in.
        hidden_channels (int): Width of the hidden layers. Defaults to 2048.
        bottleneck_channels (int): Width before the prototypes. Defaults to
            256.
        num_prototypes (int): Number K of prototypes. Defaults to 65536.
        num_layers (int): Linear layers before the prototypes. Defaults to 3.
        norm_cfg (dict, optional): Norm after each hidden linear layer, e.g.
            ``dict(type='BN1d')``, which helps on small data sets. Defaults
            to None, as in the paper.
        init_cfg (dict | list, optional): Defaults to a truncated normal of
            standard deviation 0.02 for the linear layers.

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> neck = DINONeck(in_channels=64, num_prototypes=100)
        >>> maps = torch.randn(2 * 4, 64, 7, 7)  # two views of four images
        >>> logits = neck([neck.pool(maps)], batch=4)
        >>> logits.shape, logits.compute().shape
        (torch.Size([2, 4, 100]), torch.Size([2, 4, 100]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 2048,
        bottleneck_channels: int = 256,
        num_prototypes: int = 65536,
        num_layers: int = 3,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='TruncNormal', layer='Linear', std=0.02)
        super().__init__(init_cfg)
        for name, size in (
            ('in_channels', in_channels),
            ('hidden_channels', hidden_channels),
            ('bottleneck_channels', bottleneck_channels),
            ('num_prototypes', num_prototypes),
            ('num_layers', num_layers),
        ):
            if size < 1:
                raise ValueError(f'DINONeck: {name}={size} must be >= 1')
        self.in_channels = in_channels
        self.num_prototypes = num_prototypes
        if norm_cfg is not None:
            kind = norm_cfg['type']
            norm_cfg = dict(norm_cfg, type=NORM_1D.get(kind, kind))
        widths = [in_channels] + [hidden_channels] * (num_layers - 1)
        layers: list[nn.Module] = []
        for width, next_width in zip(widths, widths[1:], strict=False):
            layers.append(nn.Linear(width, next_width))
            if norm_cfg is not None:
                layers.append(build_norm_layer(norm_cfg, next_width)[1])
            layers.append(nn.GELU())
        layers.append(nn.Linear(widths[-1], bottleneck_channels))
        self.mlp = nn.Sequential(*layers)
        self.prototypes = Prototypes(bottleneck_channels, num_prototypes)

    def pool(self, feature: Tensor) -> Tensor:
        """Reduce a map (B, C, H, W) or vectors (B, C) to (B, C).

        Raises:
            ValueError: C is not ``in_channels``.
        """
        if feature.ndim == 4:
            feature = global_average_pool(feature)
        if feature.shape[-1] != self.in_channels:
            raise ValueError(
                f"DINONeck: in_channels={self.in_channels} but the backbone's "
                f'last output has {feature.shape[-1]} channels: leave '
                'model.neck.in_channels out'
            )
        return feature

    def forward(self, features: list[Tensor], batch: int) -> LazyCosineLogits:
        """Project pooled features, all resolutions in one pass.

        Args:
            features (list[Tensor]): Pooled features (V_i B, C).
            batch (int): Number B of images.

        Returns:
            LazyCosineLogits: Cosines to the prototypes, shape
            (sum of V_i, B, K), not yet computed.
        """
        embeddings = at_least_fp32(self.mlp(torch.cat(features)))
        embeddings = F.normalize(embeddings, dim=-1)
        return self.prototypes(embeddings.unflatten(0, (-1, batch)))


class SearchProjector(BaseModule):
    """Project one layer's maps: three convolutions, then two FC layers.

    A residual bottleneck (1x1 C -> mid, 3x3, 1x1 mid -> C, each with batch
    norm; add the input; ReLU), global average pool, FC C -> hidden, norm,
    ReLU, FC hidden -> out, norm, L2 normalization.

    Args:
        in_channels (int): Channels C of the layer.
        mid_channels (int): Channels inside the bottleneck.
        hidden_channels (int): Width between the FC layers.
        out_channels (int): Width of the output.
        norm_cfg (dict): Batch norm of the convolutions; its 1-D form follows
            the FC layers.

    Example:
        >>> projector = SearchProjector(64, 16, 128, 256, dict(type='BN'))
        >>> projector(torch.randn(4, 64, 7, 7)).shape
        torch.Size([4, 256])
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

    def forward(self, maps: Tensor | LazyAttendedMaps) -> Tensor:
        """Project maps (..., C, H, W) to unit vectors (..., out_channels)."""
        if isinstance(maps, LazyAttendedMaps):
            shape = maps.attention.shape[:-2]
            parts: Iterable[ConvModule] = self.bottleneck
            reduce, *others = parts
            # The 1x1 convolution of A F is A times that of F.
            x = maps.weigh(reduce.conv(maps.flat_maps))
            x = reduce.activate(reduce.norm(x))
            for layer in others:
                x = layer(x)
            x = maps.add_to_(x)
        else:
            shape = maps.shape[:-3]
            maps = maps.flatten(0, -4)
            x = self.bottleneck(maps).add_(maps)
        x = self.mlp(global_average_pool(F.relu(x, inplace=True)))
        return F.normalize(at_least_fp32(x), dim=-1).unflatten(0, shape)


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
        ValueError: A size is not positive, or the norm is not a batch norm.

    Example:
        >>> neck = FeatureSearchNeck(in_channels=[16, 32])
        >>> maps = torch.randn(4, 16, 14, 14), torch.randn(4, 32, 7, 7)
        >>> [tuple(x.shape) for x in neck(maps)]
        [(4, 256), (4, 256)]
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

    def forward(
        self, maps: Sequence[Tensor | LazyAttendedMaps]
    ) -> list[Tensor]:
        """Project the maps of each layer.

        Args:
            maps (Sequence[Tensor | LazyAttendedMaps]): Maps (..., C_i, H_i,
                W_i), in the order of ``in_channels``; the first dimensions
                count views and images.

        Returns:
            list[Tensor]: Unit vectors (..., D), one tensor a layer.

        Raises:
            ValueError: As :meth:`check_layers`.
        """
        self.check_layers(
            [m.maps if isinstance(m, LazyAttendedMaps) else m for m in maps]
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
            ValueError: Their number or channels differ, or one is not a map.
        """
        expected = [p.in_channels for p in self.projectors]
        shapes = [tuple(layer.shape) for layer in maps]
        if any(layer.ndim < 4 for layer in maps):
            raise ValueError(
                'FeatureSearchNeck needs maps (B, C, H, W), but the search '
                f'layers of the backbone have shapes {shapes}: choose others '
                'by model.search_layers, or have the backbone give maps '
                '(ConvNeXt: gap_before_final_norm=False; vision '
                "transformer: type='SearchVisionTransformer')"
            )
        if expected != [layer.shape[-3] for layer in maps]:
            raise ValueError(
                f'FeatureSearchNeck: in_channels={expected} but the search '
                f'layers of the backbone have shapes {shapes}: leave '
                'model.search_neck.in_channels out, or change '
                'model.search_layers'
            )


@MODELS.register_module()
class ConcatNeck(nn.Module):
    """Concatenate the features of several layers for a linear classifier.

    Example:
        >>> features = torch.zeros(4, 192), torch.zeros(4, 192)
        >>> ConcatNeck()(features)[0].shape
        torch.Size([4, 384])
    """

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the (N, sum of C_i) of all (N, C_i), in a tuple."""
        return (torch.cat(features, dim=1),)


@MODELS.register_module()
class ClassPatchNeck(nn.Module):
    """Class token and mean patch token of a transformer's last block.

    For a linear classifier, as DINO evaluates a ViT-B. The backbone needs
    ``out_type='raw'``.

    Example:
        >>> tokens = torch.zeros(4, 1 + 196, 192)
        >>> ClassPatchNeck()((tokens,))[0].shape
        torch.Size([4, 384])
    """

    def forward(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the (N, 2C) of tokens (N, 1 + L, C), in a tuple."""
        tokens = outputs[-1]
        return (torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1),)
