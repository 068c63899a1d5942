# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the benchmarks share: command line, ratios, tables, peak memory."""

import argparse
import ctypes
import gc
import statistics
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_line import add_cfg_options, at_least, make_parser

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ['add_cfg_options', 'at_least', 'make_parser']  # for the commands
MIB = 2**20


def add_counts(
    parser: argparse.ArgumentParser, *options: tuple[str, int, int, str]
) -> None:
    """Add options of whole numbers: (name, default, lowest, text) each."""
    for name, default, low, text in options:
        parser.add_argument(
            f'--{name}',
            type=at_least(low),
            default=default,
            metavar='N',
            help=f'{text} (default: %(default)s)',
        )


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


def resident_bytes() -> int:
    """Return the process's own memory, without mapped files.

    Raises:
        OSError: The system does not say it (only Linux does).
    """
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('RssAnon'):
            return 1024 * int(line.split()[1])
    raise OSError('/proc/self/status has no RssAnon')


class PeakMemory:
    """Measures what a block of code allocates at most, in ``bytes``.

    Args:
        device (str): "cuda" for what is allocated on the GPU; otherwise the
            process's own memory beyond that before the block.
    """

    def __init__(self, device: str) -> None:
        self.is_gpu = device == 'cuda'
        self.bytes = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self) -> None:
        """Look every few milliseconds."""
        while not self.is_over.wait(0.003):
            self.bytes = max(self.bytes, resident_bytes() - self.before)

    def __enter__(self) -> 'PeakMemory':
        if self.is_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            gc.collect()
            # Freed memory that malloc still holds would hide new one.
            ctypes.CDLL(None).malloc_trim(0)
            self.before = resident_bytes()
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self.is_gpu:
            import torch

            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self.is_over.set()
            self.thread.join()
