# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..losses.cosine_logits import CosineLogits
from ..losses.functional import at_least_fp32
from ..search import global_average_pool
from .norm_1d import NORM_1D


class Prototypes(nn.Module):
    """Weight-normalised linear layer with the gain fixed at 1.

    Its input are unit vectors, so its outputs are cosines in [-1, 1].

    Args:
        in_channels (int): Width of the input.
        num_prototypes (int): Number K of prototypes.
    """

    def __init__(self, in_channels: int, num_prototypes: int) -> None:
        super().__init__()
        # A plain linear layer's initial weights, as in DINO's release.
        linear = nn.Linear(in_channels, num_prototypes, bias=False)
        self.weight = linear.weight

    def forward(self, embeddings: Tensor) -> CosineLogits:
        """Map unit vectors (V, B, C) to cosines (V, B, K), on demand."""
        return CosineLogits(embeddings, self.weight)


@MODELS.register_module()
class DINONeck(BaseModule):
    """DINO's projector: an MLP, L2 normalisation and prototypes.

    With the defaults: linear C -> 2048, GELU, 2048 -> 2048, GELU,
    2048 -> 256, normalise, 65536 prototypes. That is the "four-layer MLP" of
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

    def forward(self, features: list[Tensor], batch: int) -> CosineLogits:
        """Project pooled features, all resolutions in one pass.

        Args:
            features (list[Tensor]): Pooled features (V_i B, C).
            batch (int): Number B of images.

        Returns:
            CosineLogits: Cosines to the prototypes, shape
            (sum of V_i, B, K), not yet computed.
        """
        embeddings = at_least_fp32(self.mlp(torch.cat(features)))
        embeddings = F.normalize(embeddings, dim=-1)
        return self.prototypes(embeddings.unflatten(0, (-1, batch)))
