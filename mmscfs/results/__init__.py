# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What runs and evaluations reached: one reader of a run's folder.

Tables (``tables``, ``paper``, ``evaluations``, ``detection``) are not imported
here: ``import mmscfs`` needs none of them.
"""

from .origin import (
    Origin,
    backbone_name,
    backbone_origin,
    find_start,
    origin_of,
    read_origin,
)
from .result_files import (
    PROTOCOLS,
    Result,
    find_results,
    is_result,
    read_result,
    result_path,
    write_result,
)
from .run_log import (
    Line,
    RunLog,
    Start,
    get_mapping,
    newest_checkpoint,
    read_log,
    read_scalars,
    read_starts,
    schedule,
    stitch,
    watched_files,
)

__all__ = [
    'Line',
    'Origin',
    'PROTOCOLS',
    'Result',
    'RunLog',
    'Start',
    'backbone_name',
    'backbone_origin',
    'find_results',
    'find_start',
    'get_mapping',
    'is_result',
    'newest_checkpoint',
    'origin_of',
    'read_log',
    'read_origin',
    'read_result',
    'read_scalars',
    'read_starts',
    'result_path',
    'schedule',
    'stitch',
    'watched_files',
    'write_result',
]
