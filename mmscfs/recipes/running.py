# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Train the config of a recipe in this process, as a notebook does."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import HistoryBuffer

from mmscfs.checkpoint import read_checkpoint, restore_histories
from mmscfs.engine import prepare_run
from mmscfs.engine.hooks.deferred_runtime_info_hook import read_hub
from mmscfs.engine.resume.files import unlock_work_dir
from mmscfs.engine.screen import build_runner
from mmscfs.settings import read_config


class Run(NamedTuple):
    """What a training has left."""

    config: Path  #: Its config.
    work_dir: Path  #: Its folder, for tools/analysis_tools/report.py.
    checkpoint: Path  #: The last one.
    steps: int  #: How many it made.
    seconds: float  #: How long it took.
    #: The last values in its log, such as "train/loss", and of a detector
    #: "val/coco/bbox_mAP".
    figures: dict[str, float]


def train(
    config: Path,
    work_dir: str | Path | None,
    pretrained: str | Path | None = None,
    resume: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    is_new: bool = False,
    note: str = '',
) -> Run:
    """Train a config in this process, on one device.

    A new config whose run is refused is removed, for the next try. The
    summary of the run has the note. One that resumes and has finished before
    says so, and returns what it left.

    Raises:
        ValueError: As tools/train.py refuses it.
        OSError: A file is missing.
        KeyboardInterrupt: It was stopped, after it was saved.
    """
    try:
        cfg, changes = read_config(str(config), cfg_options, for_training=True)
        cfg.work_dir = str(work_dir or Path('work_dirs', config.stem))
        cfg.resume = resume
        if pretrained is not None:
            pretrained = str(Path(pretrained).expanduser())
        finished = prepare_run(cfg, pretrained)
    except (ValueError, OSError):
        if is_new:
            config.unlink()
        raise
    if finished is not None:
        path, done = Path(cfg.load_from), finished.iteration
        hub = restore_histories(read_checkpoint(path)['message_hub'])
        figures = last_values(hub['log_scalars'])
        return Run(config, Path(cfg.work_dir), path, done, 0, figures)
    # mmdet has one name for all, by which a second run would get the first's.
    cfg.visualizer.name = f'{cfg.work_dir} {time.time()}'
    begin = time.monotonic()
    try:
        runner = build_runner(cfg, [*filter(None, [note]), *changes])
        runner.train()
    except SystemExit as end:  # PreemptionHook has saved
        raise KeyboardInterrupt(
            f'saved in {cfg.work_dir}: continue with resume=True'
        ) from end
    finally:
        unlock_work_dir(cfg.work_dir)
    folder = Path(cfg.work_dir)
    return Run(
        config,
        folder,
        Path((folder / 'last_checkpoint').read_text().strip()),
        runner.iter,
        time.monotonic() - begin,
        last_values(read_hub(runner).log_scalars),
    )


def last_values(scalars: Mapping[str, HistoryBuffer]) -> dict[str, float]:
    """Return the last value of each history of a message hub."""
    return {name: float(own.current()) for name, own in scalars.items()}
