# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .consistency_loss import ConsistencyLoss
from .cross_entropy import (
    DINOLoss,
    FeatureSearchLoss,
    LazyCosineLogits,
    at_least_fp32,
    entropy,
    teacher_probabilities,
)

__all__ = [
    'ConsistencyLoss',
    'DINOLoss',
    'FeatureSearchLoss',
    'LazyCosineLogits',
    'at_least_fp32',
    'entropy',
    'teacher_probabilities',
]
