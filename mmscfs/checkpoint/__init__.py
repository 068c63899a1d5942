# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .loading import check_same_model, read_checkpoint
from .plain import TENSOR_PARTS, restore_histories, to_plain

__all__ = [
    'TENSOR_PARTS',
    'check_same_model',
    'read_checkpoint',
    'restore_histories',
    'to_plain',
]
