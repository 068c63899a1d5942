# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from torch import Tensor
from torchvision.ops import roi_align

from ..losses import at_least_fp32
from .soft_search import FeatureSearch


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
        # Cell i of a map covers [i, i + 1): aligned=True knows that.
        scale = regions.new_tensor([width, height, width, height])
        index = torch.arange(num_global * batch, device=regions.device)
        index = index.view(num_global, 1, batch, 1)
        rois = torch.cat(
            [index.expand(-1, num_local, -1, -1), regions * scale], dim=-1
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
