# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .normed_vision_transformer import NormedVisionTransformer
from .search_vision_transformer import SearchVisionTransformer

__all__ = ['NormedVisionTransformer', 'SearchVisionTransformer']
