# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .roi_search import RoIFeatureSearch, regions_in_views
from .soft_search import (
    FeatureSearch,
    LazyAttendedMaps,
    SoftFeatureSearch,
    global_average_pool,
    search_attention,
)

__all__ = [
    'FeatureSearch',
    'LazyAttendedMaps',
    'RoIFeatureSearch',
    'SoftFeatureSearch',
    'global_average_pool',
    'regions_in_views',
    'search_attention',
]
