# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read what a run wrote into its work directory.

As mmengine writes it: for each start ``<timestamp>/<timestamp>.log`` and
``<timestamp>/vis_data/`` with ``config.py`` and ``scalars.json``; for a test
``<timestamp>/<timestamp>.json``. Nothing in it is executed.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmscfs.checkpoint import parse_config
from mmscfs.settings.lengths import length_of

from .origin import Origin, find_start, origin_of

Line = dict[str, float]
# Of a config, those that are read here.
SECTIONS = (
    *('model', 'train_dataloader', 'train_cfg', 'default_hooks'),
    'optim_wrapper',
)
QUIET = 600  # seconds without a sign of life of a run that has stopped
INTERRUPTED, SETTLED = 'interrupted.pth', 10  # seconds


class Start(NamedTuple):
    """One start of a run."""

    folder: Path  #: ``<work dir>/<timestamp>``.
    cfg: dict  #: The config.
    text: str  #: The same as text.
    lines: list[Line]  #: What it logged.
    damaged: int  #: How many more lines cannot be read.
    test: Line  #: Scores of a test.
    #: What its log says of its machine and libraries.
    environment: dict[str, str]
    epoch_length: int | None  #: Iterations of an epoch, by its log.

    @property
    def world_size(self) -> int:
        """Number of processes, 1 if unknown."""
        return int(self.environment.get('GPU number') or 1)


class RunLog:
    """What a run wrote into a work directory, in one start or several.

    Example:
        >>> log = read_log('work_dirs/scfs_r50')
        >>> log.reached, log.planned
        (120.0, (200, 'epochs'))
    """

    def __init__(self, folder: Path, starts: list[Start]) -> None:
        self.folder = folder
        self.starts = starts  #: Oldest first, at least one.
        #: The starts that logged, or else all; the last has config and text.
        self.trained = [start for start in starts if start.lines] or starts
        last = self.trained[-1]
        self.cfg, self.text = last.cfg, last.text
        self.lines = stitch([start.lines for start in starts])
        #: Lines of the training.
        self.train = [line for line in self.lines if 'iter' in line]
        #: Lines of validations.
        self.val = [line for line in self.lines if 'iter' not in line]
        #: Iterations; None of a run that does not count epochs.
        self.epoch_length = last.epoch_length or iterations_per_epoch(
            self.train
        )

    @cached_property
    def kind(self) -> str:
        """ "pre-training", "classification" or "detection"."""
        model = get_mapping(self.cfg, 'model')
        if any(str(name).endswith('_head') for name in model):
            return 'detection'
        if re.search('Classifier|Probe', str(model.get('type'))):
            return 'classification'
        return 'pre-training'

    @cached_property
    def origin(self) -> Origin:
        """How the run itself trains."""
        return origin_of(self.cfg, self.trained[-1].world_size)

    @cached_property
    def started_from(self) -> Origin:
        """What its backbone started from; a test does not count."""
        return find_start([start.cfg for start in self.trained])

    @property
    def planned(self) -> tuple[int, str]:
        """Length of the training, 0 if unknown; "epochs" or "iterations"."""
        return schedule(self.cfg)

    @property
    def reached(self) -> float:
        """How much of ``planned`` is done, in its unit."""
        if not self.lines:
            return 0.0
        # A short run may have only a validation in its log.
        iteration = self.train[-1]['at'] if self.train else 0.0
        total, unit = self.planned
        length = 1 if unit == 'iterations' else self.epoch_length or 1
        logger = get_mapping(self.cfg, 'default_hooks', 'logger')
        interval = logger.get('interval', 10)
        if unit == 'epochs':
            # mmengine logs the end of a shorter epoch.
            interval = min(interval, length)
        # Iterations after the last multiple of the interval are not logged.
        if total and total * length - iteration < interval:
            return float(total)
        return iteration / length

    def last_validation(self) -> tuple[Line, str]:
        """Return the line of the validation at the end, and "".

        Or an empty line, and how far the training is.
        """
        total, unit = self.planned
        reached = self.reached
        if reached == total and self.lines and 'iter' not in self.lines[-1]:
            return self.lines[-1], ''
        problem = f'unfinished: {reached:.0f} of {total} {unit}'
        if reached == total:
            problem += ', not yet evaluated'
        return {}, problem

    @property
    def written(self) -> float:
        """When it wrote last, in seconds of the epoch."""
        files = [
            file
            for start in self.starts
            for file in [start.folder, *start.folder.glob('**/*')]
        ]
        return max(file.stat().st_mtime for file in files)

    def state(self, now: float) -> str:
        """Return "finished", "running", "stopped" or "tested"."""
        if not self.train and any(start.test for start in self.starts):
            return 'tested'
        total = self.planned[0]
        if total and self.reached >= total:
            return 'finished'
        saved = Path(self.folder, INTERRUPTED)
        if saved.is_file():  # after a signal; the log's last lines follow
            now += QUIET * (self.written < saved.stat().st_mtime + SETTLED)
        return 'running' if now - self.written < QUIET else 'stopped'

    def is_over(self, now: float) -> bool:
        """Tell whether nothing will follow, not even a last validation."""
        over = self.state(now) in ('finished', 'tested')
        return over and now - self.written >= QUIET

    def position(self, line: Line, by_epoch: bool) -> float:
        """Return where in a chart a line belongs, in epochs or iterations."""
        length, at = self.epoch_length, line['at']
        if length is None:
            return at
        if 'iter' not in line:  # it is at the end of an epoch
            at = math.ceil(at / length) * length
        return at / length if by_epoch else at


def read_starts(folder: str | Path) -> list[Start]:
    """Read every start of a run, oldest first; a missing folder has none.

    Raises:
        ValueError: A config is damaged.
        OSError: A file cannot be read.
    """
    folder = Path(folder)
    starts = []
    for log in sorted(folder.glob('*/vis_data')):
        configs = [*log.glob('config.py')] or [*folder.glob('*.py')]
        if not configs or not re.fullmatch(r'\d{8}_\d{6}', log.parent.name):
            continue
        text = configs[0].read_bytes().decode(errors='replace')
        try:
            cfg = parse_config(text)
            for name in SECTIONS:
                if not isinstance(part := cfg.get(name) or {}, Mapping):
                    raise ValueError(
                        f'{name}={str(part)[:80]!r} must be a dict'
                    )
        except ValueError as error:
            raise ValueError(
                f'{str(configs[0])!r}: {error}. Copy it again, or leave this '
                'run out'
            ) from error
        stem = log.parent / log.parent.name
        tested, _ = read_scalars(stem.with_suffix('.json'))
        lines, damaged = read_scalars(log / 'scalars.json')
        test = tested[-1] if tested else {}
        starts.append(
            Start(
                *(log.parent, cfg, text, lines, damaged, test),
                *_read_text(stem.with_suffix('.log')),
            )
        )
    return starts


def read_log(folder: str | Path) -> RunLog:
    """Read a work directory.

    Raises:
        ValueError: The folder is not one, or a config in it is damaged.
        OSError: A file cannot be read.
    """
    folder = Path(folder)
    if starts := read_starts(folder):
        return RunLog(folder, starts)
    raise ValueError(
        f'{str(folder)!r} is not the work directory of a run: it lacks '
        '<timestamp>/vis_data/config.py, which mmengine writes at the start. '
        'Name the folder given as --work-dir'
    )


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Return a run's newest whole checkpoint, which may be any file name.

    Newer files than ``last_checkpoint`` names may be torn. The folder may
    have been moved since.
    """
    last = Path(folder, 'last_checkpoint')
    if not last.is_file():
        return None
    name = Path(last.read_text(encoding='utf-8').strip()).name
    path = last.parent / name
    return path if path.is_file() else None


def watched_files(folder: Path) -> list[tuple[Path, int, int]]:
    """Return the files that a report depends on, their sizes and times."""
    states = [
        (path, path.stat())
        for path in sorted(folder.rglob('*'))
        if path.suffix in ('.py', '.json', '.png')
    ]
    return [(path, s.st_size, s.st_mtime_ns) for path, s in states]


def read_scalars(path: Path) -> tuple[list[Line], int]:
    """Read the numbers of a file with a JSON object on each line.

    A line may be torn: the run is writing it, was killed, or went on after
    its disk was full. Such a line is left out.

    Returns:
        tuple[list[Line], int]: The lines, and how many were damaged; an
        unfinished last line does not count. A missing file has no lines.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file():
        return [], 0
    *texts, rest = path.read_bytes().decode(errors='replace').split('\n')
    lines, damaged = [], 0
    for text in texts + [rest] * bool(rest):
        try:
            # A whole number that is larger than any float becomes infinite.
            content = json.loads(text, parse_int=float).items()
            line = {k: v for k, v in content if isinstance(v, float)}
            for name in ('iter', 'epoch', 'step'):
                int(line.get(name, 0))  # raises, if it is not finite
        except (ValueError, AttributeError, RecursionError, OverflowError):
            damaged += text is not rest
            continue
        lines.append(line)
    return lines, damaged


def stitch(starts: Sequence[Sequence[Line]]) -> list[Line]:
    """Join the lines of all starts of a run into one history.

    Where a start begins before the end of an earlier one, as after a kill,
    the lines that the earlier one logged from there on are dropped.

    Args:
        starts (Sequence[Sequence[Line]]): The lines of each start, oldest
            first. Lines of a training, and only those, have "iter".

    Returns:
        list[Line]: The lines, with their iteration as "at" (that of a
        validation is the last one logged before it) and the number of their
        start as "start".
    """
    kept: list[Line] = []
    for number, lines in enumerate(starts):
        first = next((v['iter'] for v in lines if 'iter' in v), math.inf)
        kept = [line for line in kept if line['at'] < first]
        at = kept[-1]['at'] if kept else 0.0
        for line in lines:
            at = line.get('iter', at)
            kept.append(line | {'at': at, 'start': number})
    return kept


def iterations_per_epoch(lines: Sequence[Line]) -> int | None:
    """Return the length of an epoch, None if the run does not count epochs.

    Epoch e ends at iteration e times that length, so none of its lines is
    beyond it; the last lines of a long run give the exact length.
    """
    counted = [line for line in lines if 'iter' in line and line.get('epoch')]
    lengths = [line['iter'] / line['epoch'] for line in counted]
    return max(map(math.ceil, filter(math.isfinite, lengths)), default=None)


def schedule(cfg: Mapping) -> tuple[int, str]:
    """Return a training's length, 0 if unknown, and its unit."""
    length = length_of(cfg)
    return (length.value, length.unit) if length else (0, 'iterations')


def get_mapping(cfg: Any, *names: str) -> Mapping:
    """Return a part of a config, {} if the config lacks it."""
    for name in names:
        cfg = cfg.get(name) if isinstance(cfg, Mapping) else None
    return cfg if isinstance(cfg, Mapping) else {}


def _read_text(log: Path) -> tuple[dict[str, str], int | None]:
    """Return environment and length of an epoch, as a log has them."""
    text = log.read_text(errors='replace') if log.is_file() else ''
    head, _, _ = text.partition('Config:')
    # Indented by four; the lists below some of them are left out.
    environment = re.findall(r'^    (\S[^:\n]*): (.*\S)', head, re.M)
    lengths = re.findall(r'Epoch\(train\) +\[\d+\]\[ *\d+/(\d+)\]', text)
    return dict(environment), int(lengths[-1]) if lengths else None
