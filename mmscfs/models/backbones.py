# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
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

    Example:
        >>> import torch
        >>> settings = dict(arch='deit-tiny', out_indices=(8, 9, 10, 11))
        >>> backbone = NormedVisionTransformer(img_size=32, **settings)
        >>> [tuple(x.shape) for x in backbone(torch.zeros(2, 3, 32, 32))]
        [(2, 192), (2, 192), (2, 192), (2, 192)]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(final_norm=True, **kwargs)
        self.final_norm = False  # not in the loop over blocks, but below

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return super()._format_output(self.ln1(x), hw)


@MODELS.register_module()
class SearchVisionTransformer(NormedVisionTransformer):
    """A vision transformer with maps to search and a class token to project.

    The outputs are the patch tokens of the blocks ``out_indices``, folded to
    maps (B, C, H / P, W / P) for patches of P pixels, and after them the
    class token (B, C) of the last block, for DINO's projector. The final
    norm is on all of them. Images of any size: the position embeddings are
    interpolated. The weights are named as in mmpretrain's
    ``VisionTransformer``.

    SCFS's paper does not say which blocks it searches. Three evenly spread
    ones come nearest to the thirds of a depth at which a ResNet's Res2 to
    Res4 lie: of 12 blocks the 4th, 8th and 12th.

    Args:
        out_indices (Sequence[int], optional): Blocks, ascending and counted
            from 0; the last block must be among them (what is searched is
            ``search_layers`` of :class:`SCFS`). Defaults to None: three
            evenly spread blocks, the last included.
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`, but
            for ``out_type`` and ``final_norm``.

    Raises:
        ValueError: ``out_indices`` does not fit the depth, or there is no
            class token.

    Example:
        >>> import torch
        >>> backbone = SearchVisionTransformer(arch='deit-tiny', img_size=32)
        >>> [tuple(x.shape) for x in backbone(torch.zeros(2, 3, 96, 64))]
        [(2, 192, 6, 4), (2, 192, 6, 4), (2, 192, 6, 4), (2, 192)]
    """

    # Names of the outputs that follow those of out_indices.
    extra_outputs = ('cls_token',)

    def __init__(
        self, out_indices: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(out_type='featmap', **kwargs)
        if not self.with_cls_token:
            raise ValueError(
                'SearchVisionTransformer: with_cls_token=False leaves '
                "nothing for DINO's projector: set "
                'model.backbone.with_cls_token=True'
            )
        depth = self.num_layers
        if out_indices is None:
            out_indices = [depth * i // 3 - 1 for i in (1, 2, 3)]
        indices = [i + depth if i < 0 else i for i in out_indices]
        if (
            indices != sorted(set(indices))
            or indices[-1:] != [depth - 1]
            or indices[0] < 0
        ):
            raise ValueError(
                f'SearchVisionTransformer: out_indices={list(out_indices)} '
                f'of {depth} blocks must ascend and end with {depth - 1}, '
                'the last block, whose class token is an output too: set '
                'model.backbone.out_indices, and model.search_layers to '
                'search fewer of them'
            )
        self.out_indices = indices

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return maps (B, C, H / P, W / P) and a class token (B, C)."""
        maps, class_tokens = zip(*super().forward(images), strict=True)
        return *maps, class_tokens[-1]

    def _format_output(  # type: ignore[override]  # one more output
        self, x: Tensor, hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        return super()._format_output(x, hw), self.ln1(x[:, 0])
