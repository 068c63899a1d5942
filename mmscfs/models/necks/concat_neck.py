# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ConcatNeck(nn.Module):
    """Concatenate the features of several layers for a linear classifier."""

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the (N, sum of C_i) of all (N, C_i), in a tuple."""
        return (torch.cat(features, dim=1),)
