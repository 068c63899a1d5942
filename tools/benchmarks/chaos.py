#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Kill small training runs at random moments, resume them, compare the end.

Runs tools/train.py on the CPU with a checkpoint at every iteration, sends it
SIGKILL, and starts it again with --resume until it ends; then compares its
last checkpoint bit by bit with that of a run that nobody killed: weights,
teacher, centres, optimiser, schedules, random states and the log's histories
(all but times). Every second kill waits for a save and hits it while it
writes. Starts one run after another until all kills are spent.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import add_counts, count, make_parser

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = """
examples:
  # 30 kills of SCFS runs, some minutes on one core
  OMP_NUM_THREADS=1 python tools/benchmarks/chaos.py
  # MoCo with CO2, which also draws at random while it trains; other moments
  OMP_NUM_THREADS=1 python tools/benchmarks/chaos.py --method co2 --seed 1
  # a cluster's notice instead of kills
  OMP_NUM_THREADS=1 python tools/benchmarks/chaos.py --signal USR1
  # without worker processes
  OMP_NUM_THREADS=1 python tools/benchmarks/chaos.py --workers 0 --kills 10

exit code: 0 if every run ends as the one that was not killed, 1 if not
"""
MARK = 'made-by-chaos'
IMAGES = 24
REQUEUE = 75  # as the PreemptionHook says it
BATCH = 4
# What shrinks a config to seconds.
SHRINK = [
    f'train_dataloader.batch_size={BATCH}',
    'train_dataloader.dataset.data_root={data}',
    'model.backbone.depth=18',
    'model.backbone.stem_channels=8',
    'model.backbone.base_channels=8',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.by_epoch=False',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=2',
    'log_level=WARNING',
]
METHODS = {
    'scfs': (
        'configs/scfs_r50.py',
        [
            'train_dataloader.dataset.pipeline.1.global_size=32',
            'train_dataloader.dataset.pipeline.1.local_size=32',
            'train_dataloader.dataset.pipeline.1.num_local=2',
            'model.neck.in_channels=64',
            'model.neck.num_prototypes=64',
            'model.neck.hidden_channels=16',
            'model.search_neck.in_channels=[16,32,64]',
            'model.search_neck.mid_channels=4',
            'model.search_neck.hidden_channels=16',
        ],
    ),
    'co2': (
        'configs/co2/mocov2-co2_resnet50_8xb32-coslr-200e_in1k.py',
        [
            'train_dataloader.dataset.pipeline.1.global_size=32',
            'model.neck.in_channels=64',
            'model.neck.hid_channels=16',
            'model.neck.out_channels=16',
            'model.feat_dim=16',
            'model.queue_len=32',
        ],
    ),
}
# What two runs may differ in: when and where they ran, and from which commit
# of the folder's repository, which mmengine adds to its version.
OWN = (
    'time',
    'memory',
    'cfg',
    'experiment_name',
    'last_ckpt',
    'mmengine_version',
)


@dataclass
class Kill:
    """One kill of a run."""

    run: int
    seconds: float
    iteration: int
    asked: bool
    saving: bool


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    add_counts(
        parser,
        ('kills', 30, 1, 'how many kills'),
        ('epochs', 3, 1, f'of {IMAGES // BATCH} iterations, of each run'),
    )
    parser.add_argument(
        '--method',
        choices=sorted(METHODS),
        default='scfs',
        help='what is trained (default: %(default)s)',
    )
    parser.add_argument(
        '--workers',
        type=count(0),
        default=2,
        metavar='N',
        help='worker processes that load (default: %(default)s)',
    )
    parser.add_argument(
        '--signal',
        choices=['KILL', 'TERM', 'USR1'],
        default='KILL',
        help='what ends a run; it answers TERM and USR1 with a checkpoint '
        'and exit code 75 (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the moments of the kills (default: %(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/chaos'),
        help='for images, runs and their logs; what an earlier call left '
        'there is replaced (default: %(default)s)',
    )
    return parser.parse_args(argv)


def clear(folder: Path) -> None:
    """Make a folder, or remove what an earlier call left in it.

    Raises:
        ValueError: It holds something else.
    """
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).is_file():
            raise ValueError(
                f'--work-dir {folder} holds something else: name another one'
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def make_images(folder: Path) -> None:
    """Write small images of random colours."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (80, 72), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{index:02d}.jpg'), image)


class Trainer:
    """Starts training runs by forking: the stack is imported once.

    Args:
        args (argparse.Namespace): The command line's.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        sys.path.insert(0, str(ROOT / 'tools'))
        import train  # and with it the stack

        import mmscfs.engine  # noqa: F401

        self.main = train.main
        self.folder = args.work_dir.resolve()
        config, options = METHODS[args.method]
        data = self.folder / 'images'
        self.words = [str(ROOT / config), '--resume', '--cfg-options']
        self.words += [word.format(data=data) for word in SHRINK]
        self.words += [
            *options,
            f'train_dataloader.num_workers={args.workers}',
            f'train_dataloader.persistent_workers={args.workers > 0}',
            f'train_cfg.max_epochs={args.epochs}',
        ]

    def start(self, name: str) -> multiprocessing.Process:
        """Start the run of a name, or go on with it."""
        process = multiprocessing.get_context('fork').Process(
            target=self._train, args=(name,)
        )
        process.start()
        return process

    def _train(self, name: str) -> None:
        with open(self.folder / f'{name}.log', 'ab') as log:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(log.fileno(), stream.fileno())
        config, *options = self.words
        work_dir = str(self.folder / name)
        sys.argv = ['train.py', config, '--work-dir', work_dir, *options]
        self.main()

    def check(self, process: multiprocessing.Process, name: str) -> None:
        """Check that a run ended well.

        Raises:
            RuntimeError: It failed.
        """
        process.join()
        if process.exitcode:
            raise RuntimeError(
                f'a run failed (exit code {process.exitcode}): see '
                f'{self.folder / name}.log'
            )


def newest(folder: Path) -> tuple[int, Path | None]:
    """Return a run's greatest saved iteration, and its file."""
    found = {int(p.stem[5:]): p for p in folder.glob('iter_*.pth')}
    best = max(found, default=0)
    return best, found.get(best)


def is_saving(folder: Path, process: multiprocessing.Process) -> bool:
    """Whether a process writes a checkpoint, or did as it was killed."""
    end = f'.pth.tmp-{process.pid}'
    with contextlib.suppress(FileNotFoundError):  # not made yet
        return any(entry.name.endswith(end) for entry in os.scandir(folder))
    return False


def kill_later(
    process: multiprocessing.Process,
    folder: Path,
    seconds: float,
    while_saving: bool,
    number: int,
) -> bool:
    """Send a process a signal after some seconds; return whether it ended it.

    Args:
        process (multiprocessing.Process): The run.
        folder (Path): Its work directory.
        seconds (float): When.
        while_saving (bool): Wait further, for the next save.
        number (int): The signal.
    """
    process.join(seconds)
    while while_saving and process.is_alive():
        if is_saving(folder, process):
            break
        time.sleep(1e-4)
    if not process.is_alive():
        return False
    os.kill(process.pid, number)
    process.join()
    # If neither, it had ended by itself just before.
    return process.exitcode in (-number, REQUEUE)


def leaves(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield all tensors and plain values of nested ones, by their names."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and key.split('/')[-1] in OWN) and (
                'time' not in str(key)
            ):
                yield from leaves(item, f'{name}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f'{name}.{index}')
    else:
        yield name.lstrip('.'), value


def compare(first: Path, second: Path) -> list[str]:
    """Return the names of what differs between two checkpoints, bit by bit.

    Raises:
        ValueError: One is damaged.
    """
    import torch

    from mmscfs.checkpoint import check_archive, read_checkpoint

    sides = []
    for path in (first, second):
        check_archive(path)
        sides.append(dict(leaves(read_checkpoint(path))))
    one, other = sides
    different = [*(one.keys() ^ other.keys())]
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            same = (a.dtype, a.shape) == (b.dtype, b.shape) and (
                a.contiguous().numpy().tobytes()
                == b.contiguous().numpy().tobytes()
            )
        else:
            same = type(a) is type(b) and (a == b or a != a and b != b)
        if not same:
            different.append(name)
    return sorted(different)


def torment(
    trainer: Trainer, args: argparse.Namespace, reference: Path, took: float
) -> tuple[list[Kill], list[list[str]]]:
    """Kill runs until all kills are spent.

    Args:
        trainer (Trainer): Starts runs.
        args (argparse.Namespace): The command line's.
        reference (Path): The last checkpoint of the run that nobody killed.
        took (float): Seconds that it took.

    Returns:
        tuple[list[Kill], list[list[str]]]: The kills, and what differs at
        the end of each run.

    Raises:
        RuntimeError: A run failed by itself.
    """
    from launch import make_progress

    moments = random.Random(args.seed)
    kills: list[Kill] = []
    differences = []
    with make_progress() as progress:
        bar = progress.add_task('kills', total=args.kills)
        while len(kills) < args.kills:
            name = f'run_{len(differences)}'
            folder = trainer.folder / name
            while True:
                process = trainer.start(name)
                if len(kills) == args.kills:
                    trainer.check(process, name)
                    break
                seconds = moments.uniform(0, took)
                while_saving = len(kills) % 2 == 1
                if not kill_later(
                    process,
                    folder,
                    seconds,
                    while_saving,
                    signal.Signals[f'SIG{args.signal}'],
                ):
                    trainer.check(process, name)
                    break
                kills.append(
                    Kill(
                        len(differences),
                        seconds,
                        newest(folder)[0],
                        process.exitcode == REQUEUE,
                        is_saving(folder, process),
                    )
                )
                progress.advance(bar)
            end = newest(folder)[1]
            differences.append(
                compare(reference, end) if end else ['no checkpoint']
            )
    return kills, differences


def report(
    kills: Sequence[Kill], differences: Sequence[Sequence[str]]
) -> None:
    """Print the kills and how their runs ended."""
    from rich.console import Console
    from rich.table import Table

    table = Table('kill', 'run', 'after s', 'saved iteration', 'moment')
    table.add_column('the run ended')
    for number, kill in enumerate(kills, 1):
        different = differences[kill.run]
        table.add_row(
            str(number),
            str(kill.run),
            f'{kill.seconds:.2f}',
            str(kill.iteration),
            'in a save' if kill.saving else 'it saved' if kill.asked else '',
            f'{len(different)} values differ' if different else 'bit-equal',
        )
    Console().print(table)
    good = sum(not differences[kill.run] for kill in kills)
    saving = sum(kill.saving for kill in kills)
    print(
        f'{good} of {len(kills)} kills bit-equal at the end, {saving} of '
        f'them while a checkpoint was written; {len(differences)} runs'
    )
    for run, different in enumerate(differences):
        for name in different[:10]:
            print(f'run {run} differs: {name}')


def main(argv: Sequence[str] | None = None) -> int:
    """Kill and compare; return 0, or 1 if a run ends otherwise, 2 if bad."""
    args = parse_args(argv)
    try:
        clear(args.work_dir)
        make_images(args.work_dir / 'images' / 'train' / 'class')
        trainer = Trainer(args)
        start = time.monotonic()
        trainer.check(trainer.start('whole'), 'whole')
        took = time.monotonic() - start
        reference = newest(trainer.folder / 'whole')[1]
        kills, differences = torment(trainer, args, reference, took)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    report(kills, differences)
    return int(any(differences))


if __name__ == '__main__':
    sys.exit(main())
