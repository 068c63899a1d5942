# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read what runs wrote into their work directories.

As mmengine writes it: for each start ``<timestamp>/<timestamp>.log`` and
``<timestamp>/vis_data/`` with ``config.py``, ``scalars.json`` and
``vis_image/``; for a test ``<timestamp>/<timestamp>.json``. Nothing in it is
executed.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmscfs.checkpoint import Origin, origin_of, parse_config

from ..transfer.runs import schedule
from .stitching import Line, iterations_per_epoch, read_scalars, stitch

LOG_PART = 2**16  # bytes of a log, its environment or latest lines
LONGEST = 10**12  # epochs or iterations of a training that is one
# What reading settings of the wrong kind raises.
UNUSABLE = (AttributeError, LookupError, TypeError)
RESULT = b'"format": "mmscfs-result-'  # how one begins
QUIET = 600  # seconds without a sign of life of a run that is not running


class Start(NamedTuple):
    """One start of a run.

    Attributes:
        folder (Path): ``<work dir>/<timestamp>``.
        cfg (dict): The config.
        text (str): The same as text.
        lines (list[dict[str, float]]): What it logged.
        damaged (int): How many more lines cannot be read.
        test (dict[str, float]): Scores of a test.
    """

    folder: Path
    cfg: dict
    text: str
    lines: list[Line]
    damaged: int
    test: Line


class RunLog:
    """What a run wrote.

    Args:
        folder (Path): The work directory.
        starts (list[Start]): Its starts, oldest first, at least one.

    Attributes:
        cfg (dict): The config of the last start that logged.
        text (str): The same as text.
        train (list[dict[str, float]]): Lines of the training, stitched.
        val (list[dict[str, float]]): Lines of validations, stitched.
        epoch_length (int | None): Iterations of an epoch, None of a run that
            counts none.
    """

    def __init__(self, folder: Path, starts: list[Start]) -> None:
        self.folder = folder
        self.starts = starts
        last = next((s for s in reversed(starts) if s.lines), starts[-1])
        self.cfg, self.text = last.cfg, last.text
        lines = stitch([start.lines for start in starts])
        self.train = [line for line in lines if 'iter' in line]
        self.val = [line for line in lines if 'iter' not in line]
        self.epoch_length = iterations_per_epoch(self.train)
        if self.epoch_length is not None:  # exactly, if the log still tells
            self.epoch_length = (
                _logged_length(last.folder) or self.epoch_length
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
    def environments(self) -> list[dict[str, str]]:
        """What each start logged of its machine and libraries."""
        return [_logged_environment(start.folder) for start in self.starts]

    @property
    def environment(self) -> dict[str, str]:
        """That of the last start that trained, not of a test after it."""
        last = int(self.train[-1]['start']) if self.train else -1
        return self.environments[last]

    @property
    def world_size(self) -> int:
        """Number of processes of the last start that trained."""
        return _world_size(self.environment)

    @cached_property
    def world_sizes(self) -> list[int]:
        """Number of processes of each start."""
        return [_world_size(found) for found in self.environments]

    @cached_property
    def origin(self) -> Origin:
        """Method, data and batch size; unknown of an unusable config."""
        try:
            return origin_of(self.cfg, self.world_size)
        except (ValueError, *UNUSABLE):
            return Origin()

    @property
    def planned(self) -> tuple[int, str]:
        """Length of the training, 0 if unknown; "epochs" or "iterations"."""
        total, unit = schedule(self.cfg)
        usable = type(total) is int and 0 <= total < LONGEST
        return (total if usable else 0), unit

    @property
    def reached(self) -> float:
        """How much of ``planned`` is done, in its unit."""
        if not self.train:
            return 0.0
        iteration = self.train[-1]['at']
        total, unit = self.planned
        length = 1 if unit == 'iterations' else self.epoch_length or 1
        logger = get_mapping(self.cfg, 'default_hooks', 'logger')
        interval = logger.get('interval', 10)
        if type(interval) is not int or interval < 1:
            interval = 10
        if unit == 'epochs':
            # Of one that is shorter, mmengine logs the end.
            interval = min(interval, length)
        # What comes after the last line that there can be is not logged.
        if total and total * length - iteration < interval:
            return float(total)
        return iteration / length

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
        return 'running' if now - self.written < QUIET else 'stopped'

    def is_over(self, now: float) -> bool:
        """Tell whether nothing more is to come, be it a last validation."""
        over = self.state(now) in ('finished', 'tested')
        return over and now - self.written >= QUIET

    def position(self, line: Line, by_epoch: bool) -> float:
        """Return where in a chart a line belongs, in epochs or iterations."""
        length = self.epoch_length
        if 'iter' in line:
            return line['at'] / length if by_epoch and length else line['at']
        logger = get_mapping(self.cfg, 'default_hooks', 'logger')
        steps = logger.get('log_metric_by_epoch', True)
        step = line.get('step', 0)
        if length is None:  # then mmengine says step 0, or the iteration
            return step or line['at']
        epoch = step if steps else step / length
        return epoch if by_epoch else epoch * length


def read_log(folder: str | Path) -> RunLog:
    """Read a work directory.

    Raises:
        ValueError: It is none, or its config is damaged.
        OSError: It cannot be read.
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
        except ValueError as error:
            raise ValueError(f'{str(configs[0])!r}: {error}') from error
        tested, _ = read_scalars(log.parent / f'{log.parent.name}.json')
        lines, damaged = read_scalars(log / 'scalars.json')
        test = tested[-1] if tested else {}
        starts.append(Start(log.parent, cfg, text, lines, damaged, test))
    if not starts:
        missing = (
            'it has no <timestamp>/vis_data/config.py, which mmengine writes '
            'at the start'
            if folder.is_dir()
            else 'there is no such folder'
        )
        raise ValueError(
            f'{str(folder)!r} is no work directory of a run: {missing} '
            '(name the folder given as --work-dir)'
        )
    return RunLog(folder, starts)


def get_mapping(cfg: Any, *names: str) -> Mapping:
    """Return a part of a config; an empty one if there is none."""
    for name in names:
        cfg = cfg.get(name) if isinstance(cfg, Mapping) else None
    return cfg if isinstance(cfg, Mapping) else {}


def is_result(path: Path) -> bool:
    """Tell an evaluation's result by its beginning: others may be large.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_file():
        return False
    with open(path, 'rb') as file:
        return RESULT in file.read(100)


def watched_files(folder: Path) -> list[tuple[Path, int, int]]:
    """Return the files that a report depends on, their sizes and times."""
    found = []
    for pattern in (
        '*.py',
        '*/vis_data/config.py',
        '*/vis_data/scalars.json',
        '*/vis_data/vis_image/*',
        '*/*.json',
        '*.json',
        '*.png',
        '*.jpg',
    ):
        for path in sorted(folder.glob(pattern)):
            status = path.stat()
            found.append((path, status.st_size, status.st_mtime_ns))
    return found


def _logged_length(start: Path) -> int | None:
    """Return the length of an epoch from the end of a start's log."""
    log = start / f'{start.name}.log'
    if not log.is_file():
        return None
    with open(log, 'rb') as file:
        file.seek(max(log.stat().st_size - LOG_PART, 0))
        tail = file.read().decode(errors='replace')
    found = re.findall(r'Epoch\(train\) +\[\d+\]\[ *\d+/(\d{1,12})\]', tail)
    return int(found[-1]) or None if found else None


def _logged_environment(start: Path) -> dict[str, str]:
    """Return what a start logged of its machine and libraries."""
    log = start / f'{start.name}.log'
    if not log.is_file():
        return {}
    with open(log, 'rb') as file:
        head = file.read(LOG_PART).decode(errors='replace')
    found = re.search(
        r'^System environment:$(.*?)^-{20,}$', head, re.DOTALL | re.M
    )
    # Indented by four; the lists below some of them are left out.
    pairs = re.findall(
        r'^    (\S[^:\n]*): (.*\S)', found[1] if found else '', re.M
    )
    return dict(pairs)


def _world_size(environment: Mapping[str, str]) -> int:
    number = environment.get('GPU number', '')
    return int(number) if re.fullmatch(r'[1-9]\d{0,5}', number) else 1
