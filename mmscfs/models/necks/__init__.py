# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .class_patch_neck import ClassPatchNeck
from .concat_neck import ConcatNeck
from .dino_neck import DINONeck
from .feature_search_neck import FeatureSearchNeck

__all__ = ['ClassPatchNeck', 'ConcatNeck', 'DINONeck', 'FeatureSearchNeck']
