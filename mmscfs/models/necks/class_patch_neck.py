# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ClassPatchNeck(nn.Module):
    """Class token and mean patch token of a transformer's last block.

    For a linear classifier, as DINO evaluates a ViT-B. The backbone needs
    ``out_type='raw'``.
    """

    def forward(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the (N, 2C) of tokens (N, 1 + L, C), in a tuple."""
        tokens = outputs[-1]
        return (torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1),)
