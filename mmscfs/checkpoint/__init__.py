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
    check_pickle,
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
from .pretrained import KEPT, PretrainedBackbone, load_backbone, load_found
from .results import (
    PROTOCOLS,
    Result,
    check_writable,
    find_results,
    read_result,
    result_path,
    write_result,
)
from .writing import remove_unfinished, write_atomically

__all__ = [
    'CONVERTERS',
    'FoundBackbone',
    'KEPT',
    'Origin',
    'PROTOCOLS',
    'PretrainedBackbone',
    'Result',
    'SUFFIXES',
    'TENSOR_PARTS',
    'backbone_name',
    'check_archive',
    'check_pickle',
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
