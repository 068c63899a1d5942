# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Find what a view shows in the teacher's maps (SCFS Eqs. 5-7)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from .losses import at_least_fp32


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
        float32 (0 where a vector has no length). Autocast does not reach
        the products: in fp16 those of large features would overflow.
    """
    queries = F.normalize(at_least_fp32(queries), dim=-1)
    # Channels last, positions are rows of a matrix: nothing is copied.
    positions = at_least_fp32(keys).movedim(2, -1).flatten(2, 3)
    with torch.autocast(keys.device.type, enabled=False):
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
    :meth:`pair_weights` and :meth:`figures` are optional.

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

    def figures(self, found: Tensor | LazyAttendedMaps) -> dict[str, Tensor]:
        """Return what the log is to show of the search of one layer.

        Args:
            found (Tensor | LazyAttendedMaps): What :meth:`forward` returned.

        Returns:
            dict[str, Tensor]: Scalars without gradient by name, without
            "loss" in it; the log puts the layer before it, e.g.
            ``layer2_search_entropy``. {} by default.
        """
        return {}


class SoftFeatureSearch(FeatureSearch):
    """Search the teacher's global maps for what a local view shows.

    Learnable-parameter-free (SCFS Eqs. 5-7): a student's local map, averaged
    over space, is the query; every position of a global map is a key; the
    cosine similarity weighs the map as it is, without a softmax: the weights
    need not add up to 1.

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
        """
        queries = global_average_pool(at_least_fp32(local_maps))
        attention = search_attention(queries, global_maps)
        attention = attention.to(global_maps.dtype)
        return LazyAttendedMaps(attention, global_maps.detach())


def regions_in_views(
    local_crops: Tensor, global_crops: Tensor
) -> tuple[Tensor, Tensor]:
    """Find where crops of an image lie in other crops of it.

    Args:
        local_crops (Tensor): Left, top, right, bottom in px of the image, and
            1 if the view was flipped, shape (N, B, 5).
        global_crops (Tensor): The same of the other crops, shape (G, B, 5).

    Returns:
        tuple[Tensor, Tensor]: The common regions as the views show them:
        left, top, right and bottom as shares of their sides, shape
        (G, N, B, 4), and whether there is one, shape (G, N, B). Without one
        the region is the whole view.
    """
    boxes, others = local_crops[..., :4], global_crops[:, None, ..., :4]
    corner, size = others[..., :2], others[..., 2:] - others[..., :2]
    start = ((boxes[..., :2] - corner) / size).clamp(0, 1)
    end = ((boxes[..., 2:] - corner) / size).clamp(0, 1)
    overlap = (end > start).all(-1)
    start = torch.where(overlap[..., None], start, 0)
    end = torch.where(overlap[..., None], end, 1)
    flipped = global_crops[:, None, :, 4] > 0.5
    left, right = start[..., 0], end[..., 0]
    regions = [
        torch.where(flipped, 1 - right, left),
        start[..., 1],
        torch.where(flipped, 1 - left, right),
        end[..., 1],
    ]
    return torch.stack(regions, dim=-1), overlap


class RoIFeatureSearch(FeatureSearch):
    """Cut a view's own region out of the teacher's maps ("ROI Crop").

    The variant of SCFS in Table 7: no similarity is searched, the region that
    the searching view shows is known from its crop, and RoIAlign cuts it out
    of a global map, to the size of the view's own map. It is mirrored where
    one of the two views was flipped and the other was not.

    Only what both crops show is cut out. A pair of views that have nothing in
    common has no region; it is left out of the loss, in which every other
    pair weighs as much as it would without it.

    Example:
        >>> maps = torch.randn(1, 1, 8, 3, 3), torch.randn(1, 1, 8, 7, 7)
        >>> local_crops = torch.tensor([[[0.0, 0, 32, 32, 0]]])
        >>> global_crops = torch.tensor([[[0.0, 0, 64, 64, 1]]])  # flipped
        >>> search = RoIFeatureSearch()
        >>> search(*maps, local_crops, global_crops).shape
        torch.Size([1, 1, 1, 8, 3, 3])
        >>> search.pair_weights(local_crops, global_crops)
        tensor([[[1.]]])
    """

    needs_crops = True

    @torch.no_grad()
    def forward(  # type: ignore[override]  # needs_crops: never None
        self,
        local_maps: Tensor,
        global_maps: Tensor,
        local_crops: Tensor,
        global_crops: Tensor,
    ) -> Tensor:
        """Return the regions (G, N, B, C, h, w), without gradient.

        Args:
            local_maps (Tensor): Student maps, shape (N, B, C, h, w); only
                their size counts.
            global_maps (Tensor): Teacher maps, shape (G, B, C, H, W).
            local_crops (Tensor): Shape (N, B, 5); see
                :class:`FeatureSearch`.
            global_crops (Tensor): Shape (G, B, 5).
        """
        maps = at_least_fp32(global_maps).flatten(0, 1)
        regions, _ = regions_in_views(
            local_crops.to(maps.dtype), global_crops.to(maps.dtype)
        )
        num_global, num_local, batch = regions.shape[:3]
        height, width = global_maps.shape[-2:]
        # Cell i of a map covers [i, i + 1): aligned=True knows that. Numbers,
        # for a tensor made of them would have the host wait for a GPU.
        left, top, right, bottom = regions.unbind(-1)
        index = torch.arange(
            num_global * batch, device=maps.device, dtype=maps.dtype
        ).view(num_global, 1, batch)
        rois = torch.stack(
            [
                index.expand(-1, num_local, -1),
                *(left * width, top * height),
                *(right * width, bottom * height),
            ],
            dim=-1,
        )
        found = roi_align(
            maps,
            rois.flatten(0, 2),
            output_size=tuple(local_maps.shape[-2:]),
            aligned=True,
        ).unflatten(0, (num_global, num_local, batch))
        mirrored = local_crops[..., 4] != global_crops[:, None, :, 4]
        mirrored = mirrored.view(*mirrored.shape, 1, 1, 1)
        found = torch.where(mirrored, found.flip(-1), found)
        return found.to(global_maps.dtype)

    def pair_weights(  # type: ignore[override]
        self, local_crops: Tensor, global_crops: Tensor
    ) -> Tensor:
        """Return 1 for pairs that overlap and 0 for others, (G, N, B)."""
        _, overlap = regions_in_views(local_crops, global_crops)
        return overlap.float()
