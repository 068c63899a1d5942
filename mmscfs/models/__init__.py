# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmpretrain.registry import MODELS

from .backbones import NormedVisionTransformer
from .classifiers import LinearProbe
from .heads import DINOHead, SCFSHead
from .losses import DINOLoss, FeatureSearchLoss
from .necks import ConcatNeck, DINONeck, FeatureSearchNeck
from .search import SoftFeatureSearch
from .selfsup import DINO, SCFS

# Losses and searches know torch only; configs find them through here.
for module in (DINOLoss, FeatureSearchLoss, SoftFeatureSearch):
    MODELS.register_module(module=module)

__all__ = [
    'ConcatNeck',
    'DINO',
    'SCFS',
    'DINOHead',
    'DINOLoss',
    'DINONeck',
    'FeatureSearchLoss',
    'FeatureSearchNeck',
    'LinearProbe',
    'NormedVisionTransformer',
    'SCFSHead',
    'SoftFeatureSearch',
]
