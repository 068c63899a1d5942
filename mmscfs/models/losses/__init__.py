# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .consistency_loss import ConsistencyLoss
from .cosine_logits import CosineLogits
from .dino_loss import DINOLoss
from .feature_search_loss import FeatureSearchLoss

__all__ = [
    'ConsistencyLoss',
    'CosineLogits',
    'DINOLoss',
    'FeatureSearchLoss',
]
