# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .box_probe_loop import BoxProbe, BoxProbeLoop
from .feature_loop import FeatureLoop
from .features import Features, extract_features, normalize
from .knn_loop import KNNLoop
from .linear_svm_loop import LinearSVMLoop
from .linear_sweep_loop import LinearSweepLoop

__all__ = [
    'BoxProbe',
    'BoxProbeLoop',
    'FeatureLoop',
    'Features',
    'KNNLoop',
    'LinearSVMLoop',
    'LinearSweepLoop',
    'extract_features',
    'normalize',
]
