# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .soft_search import (
    SoftFeatureSearch,
    global_average_pool,
    search_attention,
)

__all__ = ['SoftFeatureSearch', 'global_average_pool', 'search_attention']
