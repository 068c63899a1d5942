# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .search_maps import compute_search_maps, draw_search_maps

__all__ = ['compute_search_maps', 'draw_search_maps']
