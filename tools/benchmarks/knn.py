#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Measure k-NN, search and vote: its time and memory, and plain versions'.

The bank is a memory-mapped file of random features, made once: float32 as
KNNLoop keeps them. Rounds are interleaved in one process; printed are medians.
What the whole search would take is the time of the measured queries, scaled.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import MIB, PeakMemory, add_counts, count, make_parser

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = """
examples:
  # a block of queries, and a quarter of one
  OMP_NUM_THREADS=1 python tools/benchmarks/knn.py
  # a small data set
  python tools/benchmarks/knn.py --bank 2000 --channels 512 --classes 10 \\
      --queries 500 --k 20
  # ImageNet's shape, with 256 of its 50,000 queries
  python tools/benchmarks/knn.py --bank 1281167 --queries 256
"""
CHUNK = 8192  # features made at a time
QUERIES = 256  # that the plain search compares at a time
TEMPERATURE = 0.07
SORTED = 'sorted by chunks'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    add_counts(
        parser,
        ('bank', 100_000, 1, 'features in the bank'),
        ('channels', 2048, 1, 'of a feature'),
        ('classes', 1000, 1, 'that the neighbours vote for'),
        ('k', 200, 1, 'neighbours'),
        ('rounds', 3, 1, 'rounds of each search'),
        ('all-queries', 50_000, 1, 'queries that the time is scaled to'),
    )
    parser.add_argument(
        '--queries',
        type=count(1),
        nargs='+',
        default=[4096, 1024],
        metavar='N',
        help='measured; 4096 are a block of the search, which makes the bank '
        'ready once for each (default: 4096 1024)',
    )
    parser.add_argument(
        '--no-plain',
        action='store_true',
        help='leave out the plain versions, whose memory grows with bank and '
        'queries',
    )
    parser.add_argument(
        '--folder',
        type=Path,
        default=Path('work_dirs/benchmarks'),
        help='where banks are kept (default: %(default)s)',
    )
    return parser.parse_args(argv)


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


def make_bank(path: Path, shape: tuple[int, int]) -> None:
    """Write the bank, a chunk at a time; it appears when it is whole."""
    import numpy as np
    from rich.progress import track

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f'.{path.name}.unfinished')
    bank = np.lib.format.open_memmap(new, 'w+', np.float32, shape)
    for start in track(range(0, shape[0], CHUNK), 'making the bank'):
        part = bank[start : start + CHUNK]
        part[:] = cluster_features(len(part), shape[1], seed=2 + start)
    bank.flush()
    new.rename(path)


def build_searches(
    bank: 'Tensor', args: argparse.Namespace, device: str
) -> dict[str, Callable]:
    """Return searches by name, ours by default first.

    Each takes queries (Q, C), and returns places (Q, k) in the bank and the
    scores (Q, classes) of the vote.
    """
    import torch
    from torch.nn.functional import normalize, one_hot

    from mmscfs.evaluation import find_neighbors, resolve_precision, vote

    labels = torch.arange(len(bank), device=device) % args.classes

    def ours(queries, precision):
        found = find_neighbors(queries, bank, args.k, precision=precision)
        scores = vote(
            found.similarity, labels[found.index], args.classes, TEMPERATURE
        )
        return found.index, scores

    def by_sorting(queries):
        """Chunks of queries, every similarity sorted, as scripts have it."""
        features = normalize(bank.to(device))
        found, scores = [], []
        for chunk in queries.split(QUERIES):
            similarity = normalize(chunk) @ features.T
            similarity, index = similarity.sort(dim=1, descending=True)
            similarity, index = similarity[:, : args.k], index[:, : args.k]
            votes = one_hot(labels[index], args.classes)
            weights = (similarity / TEMPERATURE).exp()
            scores.append((votes * weights[..., None]).sum(1))
            found.append(index.clone())
        return torch.cat(found), torch.cat(scores)

    def at_once(queries):
        """All similarities at once, and only the largest sorted."""
        features = normalize(bank.to(device))
        similarity, index = (normalize(queries) @ features.T).topk(args.k)
        weights = (similarity / TEMPERATURE).exp()
        scores = weights.new_zeros(len(queries), args.classes)
        return index, scores.scatter_add_(1, labels[index], weights)

    auto = resolve_precision('auto', torch.device(device))
    searches = {f'ours, {auto} (default)': partial(ours, precision='auto')}
    if auto != 'fp32':
        searches['ours, fp32'] = partial(ours, precision='fp32')
    if not args.no_plain:
        searches |= {SORTED: by_sorting, 'largest, all at once': at_once}
    return searches


def measure(
    searches: dict[str, Callable], queries: 'Tensor', rounds: int
) -> tuple[dict, dict, dict]:
    """Return the seconds, the most memory and the answer of each search."""
    import torch
    from rich.progress import track

    times = {name: [] for name in searches}
    memory, answers = dict.fromkeys(searches, 0), {}
    for name in track([*searches] * rounds, 'searching', transient=True):
        with PeakMemory(queries.device.type) as peak:
            start = time.perf_counter()
            answers[name] = searches[name](queries)
            if queries.is_cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
        memory[name] = max(memory[name], peak.bytes)
    return times, memory, answers


def report(
    times: dict, memory: dict, queries: 'Tensor', args: argparse.Namespace
) -> None:
    """Print a table of what was measured."""
    import torch
    from rich.console import Console
    from rich.table import Table

    reference = SORTED if SORTED in times else next(iter(times))
    base = statistics.median(times[reference])
    threads = torch.get_num_threads()
    table = Table(
        title=f'{len(queries)} of {args.all_queries} queries, bank of '
        f'{args.bank} x {args.channels}, k = {args.k}, {args.classes} '
        f'classes, on {queries.device} ({threads} threads)'
    )
    for column in (
        'search',
        'seconds (median)',
        'range',
        f'times as fast as {reference}',
        f'hours for {args.all_queries}',
        'memory it takes (MiB)',
    ):
        table.add_column(
            column, justify='left' if column == 'search' else 'right'
        )
    for name, values in times.items():
        median = statistics.median(values)
        hours = median * args.all_queries / len(queries) / 3600
        table.add_row(
            name,
            f'{median:.3f}',
            f'{min(values):.3f}-{max(values):.3f}',
            f'{base / median:.2f}',
            f'{hours:.3f}',
            f'{memory[name] / MIB:.0f}',
        )
    Console(width=120).print(table)


def compare(answers: dict, queries: 'Tensor', bank: 'Tensor') -> None:
    """Print how the others' answers differ from our default's."""
    import torch

    (first, (index, scores)), *others = answers.items()
    for name, (other, other_scores) in others:
        row, column = (index != other).nonzero(as_tuple=True)
        pairs = [
            torch.cosine_similarity(
                queries[row].double(),
                bank[found[row, column].cpu()].to(queries.device),
            )
            for found in (index, other)
        ]
        gap = (pairs[0] - pairs[1]).abs().max().item() if len(row) else 0.0
        same = scores.argmax(1) == other_scores.argmax(1)
        print(
            f'{name}: {len(row)} of {index.numel()} neighbours differ from '
            f'{first}, their similarities by {gap:.1e} at most (float32 tells '
            f'1e-7 apart); {int(same.sum())} of {len(same)} predictions are '
            'the same'
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, return its exit code."""
    args = parse_args(argv)
    if args.k > args.bank:
        print(
            f'error: --k {args.k} must be at most --bank {args.bank}',
            file=sys.stderr,
        )
        return 2

    import numpy as np
    import torch
    from mmengine.device import get_device

    device = get_device()
    path = args.folder / f'knn_bank_{args.bank}x{args.channels}.npy'
    if not path.is_file():
        make_bank(path, (args.bank, args.channels))
    bank = torch.from_numpy(np.load(path, mmap_mode='c'))
    searches = build_searches(bank, args, device)
    for number in args.queries:
        queries = cluster_features(number, args.channels, seed=1)
        queries = torch.from_numpy(queries).to(device)
        times, memory, answers = measure(searches, queries, args.rounds)
        report(times, memory, queries, args)
        compare(answers, queries, bank)
    print(
        "memory: the process's own beyond what it held before (without the "
        'pages of the mapped file, which the system drops when it needs them)'
        if device == 'cpu'
        else 'memory: allocated on the GPU'
    )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
