# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .dino_loss import DINOLoss
from .feature_search_loss import FeatureSearchLoss

__all__ = ['DINOLoss', 'FeatureSearchLoss']
