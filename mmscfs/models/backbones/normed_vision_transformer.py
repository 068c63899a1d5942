# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class NormedVisionTransformer(VisionTransformer):
    """A vision transformer whose final norm is on every output.

    mmpretrain's norms the last block's output only. DINO evaluates the last
    blocks of a transformer together, each behind the final norm. The weights
    are named as in mmpretrain's.

    Args:
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`, but
            for ``final_norm``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(final_norm=True, **kwargs)
        self.final_norm = False  # not in the loop over blocks, but below

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return super()._format_output(self.ln1(x), hw)
