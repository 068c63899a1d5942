# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .knn import class_ranks, top_k_accuracy, vote, weighted_knn
from .linear_sweep import LinearClassifiers, train_linear
from .neighbors import Neighbors, find_neighbors
from .retrieval import view_retrieval
from .sharded import find_sharded_neighbors

__all__ = [
    'LinearClassifiers',
    'Neighbors',
    'class_ranks',
    'find_neighbors',
    'find_sharded_neighbors',
    'top_k_accuracy',
    'train_linear',
    'view_retrieval',
    'vote',
    'weighted_knn',
]
