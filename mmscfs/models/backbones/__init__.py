# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .normed_vision_transformer import NormedVisionTransformer

__all__ = ['NormedVisionTransformer']
