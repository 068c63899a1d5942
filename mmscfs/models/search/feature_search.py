# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from torch import Tensor, nn

from .attended_maps import AttendedMaps


class FeatureSearch(nn.Module):
    """Base of the search operators: find a view in the teacher's maps.

    An operator has no parameters. To add one, write its ``forward``,
    register it with mmpretrain's MODELS, and name it in ``model.search``.

    Attributes:
        needs_crops (bool): Whether the operator asks where the views lie in
            their image; then every sample must carry the ``crops`` of
            :class:`MultiCrop`. Defaults to False.
    """

    needs_crops = False

    def forward(
        self,
        local_maps: Tensor,
        global_maps: Tensor,
        local_crops: Tensor | None = None,
        global_crops: Tensor | None = None,
    ) -> Tensor | AttendedMaps:
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
            Tensor | AttendedMaps: Feature augmentations, shape
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
