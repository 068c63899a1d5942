# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .attended_maps import AttendedMaps
from .feature_search import FeatureSearch
from .roi_search import RoIFeatureSearch, regions_in_views
from .soft_search import (
    SoftFeatureSearch,
    global_average_pool,
    search_attention,
)

__all__ = [
    'AttendedMaps',
    'FeatureSearch',
    'RoIFeatureSearch',
    'SoftFeatureSearch',
    'global_average_pool',
    'regions_in_views',
    'search_attention',
]
