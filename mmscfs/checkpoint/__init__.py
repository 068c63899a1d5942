# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .config_text import flatten, parse_config
from .export import (
    SUFFIXES,
    convert,
    describe_source,
    encode,
    read_data_preprocessor,
)
from .layouts import FoundBackbone, find_backbone, resnet_settings
from .loading import (
    check_archive,
    check_pickle,
    check_same_model,
    drop_code,
    file_state,
    naming,
    note_whole,
    read_checkpoint,
    read_meta,
)
from .plain import TENSOR_PARTS, restore_histories, to_plain
from .pretrained import PretrainedBackbone, load_backbone, load_found
from .writing import check_writable, remove_unfinished, write_atomically

__all__ = [
    'FoundBackbone',
    'PretrainedBackbone',
    'SUFFIXES',
    'TENSOR_PARTS',
    'check_archive',
    'check_pickle',
    'check_same_model',
    'check_writable',
    'convert',
    'describe_source',
    'drop_code',
    'encode',
    'file_state',
    'find_backbone',
    'flatten',
    'load_backbone',
    'load_found',
    'naming',
    'note_whole',
    'parse_config',
    'read_checkpoint',
    'read_data_preprocessor',
    'read_meta',
    'remove_unfinished',
    'resnet_settings',
    'restore_histories',
    'to_plain',
    'write_atomically',
]
