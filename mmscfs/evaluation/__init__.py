# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .knn import top_k_accuracy, weighted_knn
from .retrieval import view_retrieval

__all__ = ['top_k_accuracy', 'view_retrieval', 'weighted_knn']
