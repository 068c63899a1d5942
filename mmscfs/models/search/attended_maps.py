# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import NamedTuple

from torch import Tensor


class AttendedMaps(NamedTuple):
    """Feature augmentations F' = A F of Eq. 7, not yet multiplied out.

    A weighs positions, so it commutes with whatever is linear at each of
    them: a 1x1 convolution of F' is A times that of F, which is computed once
    for a global map, not for every view that searches it.

    Attributes:
        attention (Tensor): A, shape (G, N, B, H, W).
        maps (Tensor): F, shape (G, B, C, H, W).
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
