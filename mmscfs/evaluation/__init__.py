# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .boxes import (
    background_boxes,
    box_features,
    count_pixels,
    mean_iou,
    paint_masks,
    patch_labels,
    sample_patches,
    segment_patches,
)
from .collapse import CollapseCriteria
from .knn import (
    check_temperature,
    class_ranks,
    top_k_accuracy,
    vote,
    weighted_knn,
)
from .linear_svm import (
    SVM_COSTS,
    average_precision,
    build_svm,
    check_examples,
    check_svm,
    svm_average_precision,
)
from .linear_sweep import LinearClassifiers, check_training, train_linear
from .neighbors import (
    Neighbors,
    find_neighbors,
    resolve_precision,
)
from .representation import (
    DSETerms,
    alpha_req,
    dse_terms,
    lidar,
    normalized_dse,
    rankme,
)
from .retrieval import view_retrieval

__all__ = [
    'CollapseCriteria',
    'DSETerms',
    'LinearClassifiers',
    'Neighbors',
    'SVM_COSTS',
    'alpha_req',
    'average_precision',
    'background_boxes',
    'box_features',
    'build_svm',
    'check_examples',
    'check_svm',
    'check_temperature',
    'check_training',
    'class_ranks',
    'count_pixels',
    'dse_terms',
    'find_neighbors',
    'lidar',
    'mean_iou',
    'normalized_dse',
    'paint_masks',
    'patch_labels',
    'rankme',
    'resolve_precision',
    'sample_patches',
    'segment_patches',
    'svm_average_precision',
    'top_k_accuracy',
    'train_linear',
    'view_retrieval',
    'vote',
    'weighted_knn',
]
