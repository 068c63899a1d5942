# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the benchmarks share: ratios, tables, peak memory."""

import ctypes
import gc
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded
from command_line import (
    add_cfg_options,
    add_counts,
    add_out_folder,
    at_least,
    make_parser,
    number,
)
from command_paths import config, folder

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [  # for the benchmarks
    'add_cfg_options',
    'add_counts',
    'add_out_folder',
    'at_least',
    'commanded',
    'config',
    'folder',
    'make_parser',
    'number',
]
MIB = 2**20


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    pairs = zip(numerator, denominator, strict=True)
    return statistics.median(a / b for a, b in pairs)


def make_table(title: str, first: str, *columns: str) -> 'Table':
    """Return a table of a name and figures."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify='right')
    return table


def resident_bytes(name: str) -> int:
    """Return the process's memory: "VmRSS" now, or "VmHWM" at most.

    Raises:
        OSError: The system does not say it (only Linux does).
    """
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise OSError(f'/proc/self/status has no {name}')


class PeakMemory:
    """Measures what a block of code allocates at most, in ``bytes``.

    Args:
        device (str): "cuda" for what is allocated on the GPU; otherwise the
            process's memory beyond that before the block.
    """

    def __init__(self, device: str) -> None:
        self.is_gpu = device == 'cuda'
        self.bytes = self.before = 0

    def __enter__(self) -> 'PeakMemory':
        if self.is_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            gc.collect()
            # Freed memory that malloc still holds would hide new one.
            ctypes.CDLL(None).malloc_trim(0)
            Path('/proc/self/clear_refs').write_text('5')  # sets VmHWM to now
            self.before = resident_bytes('VmRSS')
        return self

    def __exit__(self, *_) -> None:
        if self.is_gpu:
            import torch

            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self.bytes = resident_bytes('VmHWM') - self.before
