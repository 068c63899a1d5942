# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .curves import (
    draw_knn_by_epoch,
    draw_knn_by_layer,
    draw_label_curves,
    top1_by_layer,
)
from .detections import Detections, draw_detections
from .embedding import draw_embedding, embed, write_points
from .search import (
    SearchMaps,
    SearchSample,
    compute_search_maps,
    draw_search_maps,
    jigsaw,
    search_image,
    search_layers,
)
from .sheet import write_png
from .views import ImageViews, View, draw_views, make_views, spread

__all__ = [
    'Detections',
    'ImageViews',
    'SearchMaps',
    'SearchSample',
    'View',
    'compute_search_maps',
    'draw_detections',
    'draw_embedding',
    'draw_knn_by_epoch',
    'draw_knn_by_layer',
    'draw_label_curves',
    'draw_search_maps',
    'draw_views',
    'embed',
    'jigsaw',
    'make_views',
    'search_image',
    'search_layers',
    'spread',
    'top1_by_layer',
    'write_png',
    'write_points',
]
