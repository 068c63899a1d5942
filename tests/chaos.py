#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Kill small training runs at random moments, resume them, compare the end.

Runs tools/train.py on the CPU with a checkpoint at every iteration, sends it
SIGKILL, and starts it again with --resume until it ends; then compares its
last checkpoint bit by bit with that of a run that nobody killed: weights,
teacher, centers, optimizer, schedules, random states and the log's histories
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
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/scfs_r50.py'
IMAGES, BATCH = 24, 4
REQUEUE = 75  # as the PreemptionHook says it
# What shrinks a config to seconds.
SHRINK = {
    'train_dataloader.batch_size': BATCH,
    'multi_crop.global_size': 32,
    'multi_crop.local_size': 32,
    'multi_crop.num_local': 2,
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.num_prototypes': 64,
    'model.neck.hidden_channels': 16,
    'model.search_neck.in_channels': '[16,32,64]',
    'model.search_neck.mid_channels': 4,
    'model.search_neck.hidden_channels': 16,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'log_level': 'WARNING',
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


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='exit code: 0 if every run ends as the one that was not '
        'killed, 1 if not',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--kills', type=int, default=30, help='how many kills')
    add('--epochs', type=int, default=3, help='length of a run')
    add('--workers', type=int, default=2, help='processes that load')
    add('--seed', type=int, default=0, help='seed of the moments of kills')
    add(
        '--signal',
        nargs='+',
        choices=['KILL', 'TERM', 'USR1'],
        default=['KILL'],
        help='signals that end runs, in turn; after TERM and USR1 a run saves '
        'a checkpoint and exits with code 75',
    )
    return parser.parse_args(argv)


def make_images(folder: Path, count: int) -> None:
    """Write small images of smooth random colors."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (80, 72), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{index:02d}.jpg'), image)


class Trainer:
    """Starts training runs by forking: the stack is imported once.

    Args:
        args (argparse.Namespace): The command line's.
        folder (Path): Of the images and the runs.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        sys.path.insert(0, str(ROOT / 'tools'))
        import train  # and with it the stack

        import mmscfs.engine  # noqa: F401

        self.main = train.main
        self.folder = folder
        settings = {
            **SHRINK,
            'train_dataloader.dataset.data_root': folder / 'images',
            'train_dataloader.num_workers': args.workers,
            'train_dataloader.persistent_workers': args.workers > 0,
            'train_cfg.max_epochs': args.epochs,
        }
        self.words = [str(CONFIG), '--resume', '--cfg-options']
        self.words += [f'{key}={value}' for key, value in settings.items()]

    def start(self, name: str) -> multiprocessing.Process:
        """Start the run of a name, or resume it."""
        process = multiprocessing.get_context('fork').Process(
            target=self._train, args=(name,)
        )
        process.start()
        return process

    def _train(self, name: str) -> None:
        log = open(self.folder / f'{name}.log', 'a')  # noqa: SIM115
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        sys.stdout = sys.stderr = log
        config, *options = self.words
        work_dir = str(self.folder / name)
        sys.argv = ['train.py', config, '--work-dir', work_dir, *options]
        self.main()

    def finish(self, process: multiprocessing.Process, name: str) -> Path:
        """Wait for a run's end; return its last checkpoint.

        Exits if it failed.
        """
        process.join()
        if process.exitcode:
            log = self.folder / f'{name}.log'
            sys.exit(
                f'error: exit code {process.exitcode} of a run: see {log}'
            )
        saved = (self.folder / name).glob('iter_*.pth')
        return max(saved, key=lambda path: int(path.stem[5:]))


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


def main(argv: Sequence[str] | None = None) -> int:
    """Kill and compare; return 0, or 1 if a run ends otherwise."""
    args = parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix='chaos-'))
    make_images(folder / 'images' / 'train' / 'class', IMAGES)
    trainer = Trainer(args, folder)
    start = time.monotonic()
    reference = trainer.finish(trainer.start('whole'), 'whole')
    took = time.monotonic() - start
    moments = random.Random(args.seed)
    numbers = [signal.Signals[f'SIG{name}'] for name in args.signal]
    runs = kills = good = in_saves = differing = 0
    while kills < args.kills:
        name, before = f'run_{runs}', kills
        while kills < args.kills:
            process = trainer.start(name)
            seconds, while_saving = moments.uniform(0, took), kills % 2 == 1
            work, number = folder / name, numbers[kills % len(numbers)]
            if not kill_later(process, work, seconds, while_saving, number):
                break
            kills += 1
            in_saves += is_saving(work, process)
            print(f'kill {kills}: {name} after {seconds:.2f} s', flush=True)
        else:
            process = trainer.start(name)
        different = compare(reference, trainer.finish(process, name))
        print(f'{name} ends', ', '.join(different[:10]) or 'bit-equal')
        good += 0 if different else kills - before
        differing += bool(different)
        runs += 1
    print(
        f'{good} of {kills} kills bit-equal at the end, {in_saves} of them '
        f'while a checkpoint was written; {runs} runs'
    )
    if differing:
        print(f'checkpoints and logs: {folder}')
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == '__main__':
    sys.exit(main())
