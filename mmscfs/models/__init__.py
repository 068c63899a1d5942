# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmpretrain.registry import MODELS

from .backbones import NormedVisionTransformer, SearchVisionTransformer
from .classifiers import LinearProbe
from .heads import DINOHead, SCFSHead
from .losses import ConsistencyLoss, DINOLoss, FeatureSearchLoss
from .necks import (
    ClassPatchNeck,
    ConcatNeck,
    DINONeck,
    FeatureSearchNeck,
)
from .search import RoIFeatureSearch, SoftFeatureSearch
from .selfsup import DINO, SCFS, MoCoCO2

# Losses and searches know torch only; configs find them through here.
for module in (
    ConsistencyLoss,
    DINOLoss,
    FeatureSearchLoss,
    RoIFeatureSearch,
    SoftFeatureSearch,
):
    MODELS.register_module(module=module)

__all__ = [
    'ClassPatchNeck',
    'ConcatNeck',
    'ConsistencyLoss',
    'DINO',
    'SCFS',
    'DINOHead',
    'DINOLoss',
    'DINONeck',
    'FeatureSearchLoss',
    'FeatureSearchNeck',
    'LinearProbe',
    'MoCoCO2',
    'NormedVisionTransformer',
    'RoIFeatureSearch',
    'SCFSHead',
    'SearchVisionTransformer',
    'SoftFeatureSearch',
]
