# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .detections import Detections, draw_detections
from .search_maps import compute_search_maps, draw_search_maps

__all__ = [
    'Detections',
    'compute_search_maps',
    'draw_detections',
    'draw_search_maps',
]
