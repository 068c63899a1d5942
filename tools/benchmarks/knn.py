#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Measure the exact k-NN search: its time, memory, and a plain search's.

The bank is a memory-mapped file of random features, made once: float32 as
KNNLoop keeps them. Rounds are interleaved in one process; printed are medians.
What the whole search would take is the time of the measured queries, scaled.
"""

import argparse
import gc
import statistics
import threading
import time
from pathlib import Path

EXAMPLES = """
examples:
  python tools/benchmarks/knn.py
  # ImageNet's shape, with 256 of its 50,000 queries
  python tools/benchmarks/knn.py --bank 1281167 --queries 256
"""
CHUNK = 8192  # features made at a time
MIB = 2**20


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--bank', type=int, default=100_000, help='features (%(default)s)'
    )
    parser.add_argument('--channels', type=int, default=2048)
    parser.add_argument(
        '--queries', type=int, default=256, help='measured (%(default)s)'
    )
    parser.add_argument(
        '--all-queries',
        type=int,
        default=50_000,
        help='queries that the time is scaled to (%(default)s)',
    )
    parser.add_argument('--k', type=int, default=200)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument(
        '--no-plain',
        action='store_true',
        help='leave out the plain search, whose memory grows with bank and '
        'queries',
    )
    parser.add_argument(
        '--file',
        type=Path,
        default=Path('work_dirs/benchmarks/knn_bank.npy'),
        help='where the bank is kept (%(default)s)',
    )
    return parser.parse_args()


def cluster_features(count: int, channels: int, seed: int):
    """Return features, float32 (count, channels), around 1000 centres.

    Not negative, as those after a ReLU, and more or less alike, as those of
    real classes.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    centres = generator.standard_normal((1000, channels), np.float32)
    generator = np.random.default_rng([1, seed])
    features = generator.standard_normal((count, channels), np.float32)
    features += centres[generator.integers(0, 1000, count)]
    return features.clip(min=0)


def make_bank(path: Path, shape: tuple[int, int], track) -> None:
    """Write the bank, a chunk at a time; it appears when it is whole."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f'.{path.name}.unfinished')
    bank = np.lib.format.open_memmap(new, 'w+', np.float32, shape)
    for start in track(range(0, shape[0], CHUNK), 'making the bank'):
        part = bank[start : start + CHUNK]
        part[:] = cluster_features(len(part), shape[1], seed=2 + start)
    bank.flush()
    new.rename(path)


class PeakMemory:
    """Measures what a block of code allocates at most, in ``bytes``."""

    def __init__(self, device: str) -> None:
        self.is_gpu = device == 'cuda'
        self.bytes = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.sample)

    @staticmethod
    def resident() -> int:
        """Return the process's own memory, without mapped files."""
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('RssAnon'):
                return 1024 * int(line.split()[1])
        raise OSError('/proc/self/status has no RssAnon')

    def sample(self) -> None:
        """Look every few milliseconds."""
        while not self.is_over.wait(0.003):
            self.bytes = max(self.bytes, self.resident() - self.before)

    def __enter__(self) -> 'PeakMemory':
        if self.is_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            gc.collect()
            self.before = self.resident()
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self.is_gpu:
            import torch

            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self.is_over.set()
            self.thread.join()


def main() -> None:
    """Measure and print."""
    args = parse_args()

    import numpy as np
    import torch
    from mmengine.device import get_device
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from mmscfs.evaluation import find_neighbors

    device = get_device()
    shape = (args.bank, args.channels)
    if args.file.is_file():
        bank = np.load(args.file, mmap_mode='r')
        if bank.shape != shape:
            raise SystemExit(
                f'error: --file {args.file} holds features of shape '
                f'{bank.shape}, not {shape}: name another file or delete it'
            )
    else:
        make_bank(args.file, shape, track)
    bank = torch.from_numpy(np.load(args.file, mmap_mode='c'))
    queries = cluster_features(args.queries, args.channels, seed=1)
    queries = torch.from_numpy(queries).to(device)

    def plain(queries):
        """All similarities of float32 at once, as a short script has it."""
        features = torch.nn.functional.normalize(bank.to(device))
        queries = torch.nn.functional.normalize(queries)
        return (queries @ features.T).topk(args.k)

    precisions = ['fp32', 'bf16', *['fp16'] * (device != 'cpu')]
    searches = {
        f'find_neighbors, {p}': lambda q, p=p: find_neighbors(
            q, bank, args.k, precision=p
        )
        for p in precisions
    }
    reference = 'find_neighbors, fp32'
    if not args.no_plain:
        reference = 'all at once, fp32'
        searches[reference] = plain
    times = {name: [] for name in searches}
    memory = {}
    for name in track([*searches] * args.rounds, 'searching', transient=True):
        with PeakMemory(device) as peak:
            start = time.perf_counter()
            searches[name](queries)
            if device == 'cuda':
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
        memory[name] = max(memory.get(name, 0), peak.bytes)
    base = statistics.median(times[reference])
    scale = args.all_queries / args.queries
    table = Table(
        title=f'{args.queries} of {args.all_queries} queries, bank of '
        f'{args.bank} x {args.channels}, k = {args.k}, on {device}'
    )
    for column in (
        'search',
        'seconds (median)',
        'range',
        f'ratio to {reference}',
        f'hours for {args.all_queries}',
        'memory it takes (MiB)',
    ):
        table.add_column(
            column, justify='left' if column == 'search' else 'right'
        )
    for name, values in times.items():
        median = statistics.median(values)
        table.add_row(
            name,
            f'{median:.2f}',
            f'{min(values):.2f}-{max(values):.2f}',
            f'{median / base:.2f}',
            f'{median * scale / 3600:.2f}',
            f'{memory[name] / MIB:.0f}',
        )
    Console(width=120).print(table)
    print(
        "memory: the process's own beyond what it held before (without the "
        'pages of the mapped file, which the system drops when it needs them)'
        if device == 'cpu'
        else 'memory: allocated on the GPU'
    )


if __name__ == '__main__':
    main()
