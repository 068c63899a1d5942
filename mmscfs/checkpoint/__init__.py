# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .config_text import flatten, parse_config
from .export import (
    CONVERTERS,
    SUFFIXES,
    describe_source,
    encode,
    read_data_preprocessor,
    to_detectron2,
    to_openmmlab,
    to_timm,
    to_torchvision,
)
from .layouts import FoundBackbone, find_backbone
from .loading import (
    check_archive,
    check_same_model,
    drop_code,
    read_checkpoint,
)
from .origin import (
    Origin,
    backbone_name,
    origin_of,
    pretrained_init,
    read_origin,
    taken_network,
)
from .plain import TENSOR_PARTS, restore_histories, to_plain
from .pretrained import PretrainedBackbone, load_backbone, load_found
from .results import (
    PROTOCOLS,
    Result,
    check_writable,
    find_results,
    read_result,
    result_path,
    write_result,
)
from .verifying import NoRunError, SavedRun, read_saved_run
from .writing import remove_unfinished, write_atomically

__all__ = [
    'CONVERTERS',
    'FoundBackbone',
    'NoRunError',
    'Origin',
    'PROTOCOLS',
    'PretrainedBackbone',
    'Result',
    'SavedRun',
    'SUFFIXES',
    'TENSOR_PARTS',
    'backbone_name',
    'check_archive',
    'check_same_model',
    'check_writable',
    'describe_source',
    'drop_code',
    'encode',
    'find_backbone',
    'find_results',
    'flatten',
    'load_backbone',
    'load_found',
    'origin_of',
    'parse_config',
    'pretrained_init',
    'read_checkpoint',
    'read_data_preprocessor',
    'read_origin',
    'read_result',
    'read_saved_run',
    'remove_unfinished',
    'restore_histories',
    'result_path',
    'taken_network',
    'to_detectron2',
    'to_openmmlab',
    'to_plain',
    'to_timm',
    'to_torchvision',
    'write_atomically',
    'write_result',
]
