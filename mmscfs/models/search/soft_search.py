# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses.functional import at_least_fp32
from .attended_maps import AttendedMaps
from .feature_search import FeatureSearch


def global_average_pool(maps: Tensor) -> Tensor:
    """Average feature maps (..., C, H, W) over space to (..., C) (Eq. 5)."""
    return maps.mean(dim=(-2, -1))


def search_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Cosine similarity of queries with every position of maps (Eq. 6).

    Args:
        queries (Tensor): Pooled local features, shape (N, B, C).
        keys (Tensor): The teacher's global maps, shape (G, B, C, H, W).

    Returns:
        Tensor: Attention of shape (G, N, B, H, W) in [-1, 1], at least
        float32 (0 where a vector has no length).
    """
    queries = F.normalize(at_least_fp32(queries), dim=-1)
    # Channels last, positions are rows of a matrix: nothing is copied.
    positions = at_least_fp32(keys).movedim(2, -1).flatten(2, 3)
    products = positions @ queries.permute(1, 2, 0)
    lengths = torch.linalg.vector_norm(positions, dim=-1, keepdim=True)
    attention = products / lengths.clamp(min=1e-12)
    return attention.unflatten(2, keys.shape[-2:]).movedim(-1, 1).contiguous()


class SoftFeatureSearch(FeatureSearch):
    """Search the teacher's global maps for what a local view shows.

    Learnable-parameter-free (SCFS Eqs. 5-7): a student's local map, averaged
    over space, is the query; every position of a global map is a key; the
    cosine similarity weights the map.
    """

    @torch.no_grad()
    def forward(
        self,
        local_maps: Tensor,
        global_maps: Tensor,
        local_crops: Tensor | None = None,
        global_crops: Tensor | None = None,
    ) -> AttendedMaps:
        """Return the feature augmentations F'_lg (Eq. 7), without gradient.

        Args:
            local_maps (Tensor): Student maps, shape (N, B, C, h, w).
            global_maps (Tensor): Teacher maps, shape (G, B, C, H, W).
            local_crops, global_crops (Tensor, optional): Not used.

        Returns:
            AttendedMaps: The attention, in ``global_maps``' type, and them.

        Raises:
            ValueError: Batch or channels of the two differ.
        """
        if local_maps.shape[1:3] != global_maps.shape[1:3]:
            raise ValueError(
                'SoftFeatureSearch needs maps of the same batch and channels '
                '(N, B, C, h, w) and (G, B, C, H, W), got '
                f'{tuple(local_maps.shape)} and {tuple(global_maps.shape)}'
            )
        queries = global_average_pool(at_least_fp32(local_maps))
        attention = search_attention(queries, global_maps)
        attention = attention.to(global_maps.dtype)
        return AttendedMaps(attention, global_maps.detach())
