# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .detections import Detections, draw_detections
from .knn_curves import (
    draw_knn_by_epoch,
    draw_knn_by_layer,
    top1_by_layer,
)
from .search_maps import compute_search_maps, draw_search_maps

__all__ = [
    'Detections',
    'compute_search_maps',
    'draw_detections',
    'draw_knn_by_epoch',
    'draw_knn_by_layer',
    'draw_search_maps',
    'top1_by_layer',
]
