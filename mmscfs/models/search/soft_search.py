# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Find what a view shows in the teacher's maps (SCFS Eqs. 5-7)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import at_least_fp32


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


class LazyAttendedMaps(NamedTuple):
    """Feature augmentations F' = A F of Eq. 7, not yet multiplied out.

    A weighs positions, so it commutes with whatever is linear at each of
    them: a 1x1 convolution of F' is A times that of F, which is computed once
    for a global map, not for every view that searches it.

    Attributes:
        attention (Tensor): A, shape (G, N, B, H, W).
        maps (Tensor): F, shape (G, B, C, H, W).

    Example:
        >>> maps = torch.randn(2, 4, 8, 7, 7)
        >>> found = LazyAttendedMaps(torch.ones(2, 6, 4, 7, 7), maps)
        >>> found.weigh(found.flat_maps).shape  # F' of 2 x 6 x 4 pairs
        torch.Size([48, 8, 7, 7])
    """

    attention: Tensor
    maps: Tensor

    @property
    def flat_maps(self) -> Tensor:
        """The maps F as one batch (G B, C, H, W)."""
        return self.maps.flatten(0, 1)

    def weigh(self, maps: Tensor) -> Tensor:
        """Multiply A and other maps (G B, C', H, W), position by position.

        Returns:
            Tensor: Shape (G N B, C', H, W); channels last if ``maps`` are.
        """
        maps = maps.unflatten(0, self.maps.shape[:2]).unsqueeze(1)
        product = self.attention.unsqueeze(-1) * maps.movedim(3, -1)
        return product.flatten(0, 2).movedim(-1, 1)

    def add_to_(self, other: Tensor) -> Tensor:
        """Add F' to a tensor (G N B, C, H, W) in place, and return it."""
        views = other.unflatten(0, self.attention.shape[:3])
        views.addcmul_(self.attention.unsqueeze(3), self.maps.unsqueeze(1))
        return other


class FeatureSearch(nn.Module):
    """Base of the search operators: find a view in the teacher's maps.

    An operator has no parameters. To add one, write its ``forward``,
    register it with mmpretrain's MODELS, and name it in ``model.search``.

    Attributes:
        needs_crops (bool): Whether the operator needs to know where the views
            lie in their image; then every sample must carry the ``crops`` of
            :class:`MultiCrop`. Defaults to False.

    Example:
        >>> class WholeView(FeatureSearch):  # finds all of a global view
        ...     def forward(self, local_maps, global_maps, *crops):
        ...         size = -1, len(local_maps), -1, -1, -1, -1
        ...         return global_maps.unsqueeze(1).expand(size)
        >>> maps = torch.randn(6, 4, 8, 3, 3), torch.randn(2, 4, 8, 7, 7)
        >>> WholeView()(*maps).shape
        torch.Size([2, 6, 4, 8, 7, 7])
    """

    needs_crops = False

    def forward(
        self,
        local_maps: Tensor,
        global_maps: Tensor,
        local_crops: Tensor | None = None,
        global_crops: Tensor | None = None,
    ) -> Tensor | LazyAttendedMaps:
        """Return what each searching view found in each global view.

        Args:
            local_maps (Tensor): The student's maps of N searching views of B
                images, shape (N, B, C, h, w).
            global_maps (Tensor): The teacher's maps of G global views, shape
                (G, B, C, H, W).
            local_crops (Tensor, optional): Where the searching views lie in
                their image: left, top, right, bottom and 1 if flipped, shape
                (N, B, 5). None unless ``needs_crops``.
            global_crops (Tensor, optional): The same of the global views,
                shape (G, B, 5).

        Returns:
            Tensor | LazyAttendedMaps: Feature augmentations, shape
            (G, N, B, C, h', w'); or, if they are the maps weighed by
            position, as such.
        """
        raise NotImplementedError

    def pair_weights(
        self, local_crops: Tensor | None, global_crops: Tensor | None
    ) -> Tensor | None:
        """Return the weights (G, N, B) of the pairs in the loss.

        None, the default, weighs every pair by 1.
        """
        return None


class SoftFeatureSearch(FeatureSearch):
    """Search the teacher's global maps for what a local view shows.

    Learnable-parameter-free (SCFS Eqs. 5-7): a student's local map, averaged
    over space, is the query; every position of a global map is a key; the
    cosine similarity weighs the map.

    Example:
        >>> local_maps = torch.randn(6, 4, 8, 3, 3)  # six views, four images
        >>> found = SoftFeatureSearch()(local_maps, torch.randn(2, 4, 8, 7, 7))
        >>> found.attention.shape
        torch.Size([2, 6, 4, 7, 7])
    """

    @torch.no_grad()
    def forward(
        self,
        local_maps: Tensor,
        global_maps: Tensor,
        local_crops: Tensor | None = None,
        global_crops: Tensor | None = None,
    ) -> LazyAttendedMaps:
        """Return the feature augmentations F'_lg (Eq. 7), without gradient.

        Args:
            local_maps (Tensor): Student maps, shape (N, B, C, h, w).
            global_maps (Tensor): Teacher maps, shape (G, B, C, H, W).
            local_crops, global_crops (Tensor, optional): Not used.

        Returns:
            LazyAttendedMaps: The attention, in ``global_maps``' type, and
            them.

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
        return LazyAttendedMaps(attention, global_maps.detach())
