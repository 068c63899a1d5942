# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.config import Config

from mmscfs.datasets.checks import check_data

from .meeting import on_first_process
from .prepare import prepare_config
from .pretrained import start_from
from .resume.chooser import (
    SavedRun,
    check_work_dir,
    choose_checkpoint,
    describe_finished,
)
from .resume.files import lock_work_dir
from .view_settings import settle_views


def prepare_run(
    cfg: Config,
    pretrained: str | None = None,
    network: str | None = None,
    *,
    overwrite: bool = False,
    is_restart: bool = False,
) -> SavedRun | None:
    """Do all that comes before a run's first step, and can refuse it.

    Adapts the config to the machine, chooses the checkpoint to start or to
    resume from, checks the data and locks the work directory, in which
    nothing is written if it raises an error.

    Args:
        cfg (Config): A training's, with ``work_dir``. Changed in place.
        pretrained (str, optional): See :func:`start_from`.
        network (str, optional): See :func:`start_from`.
        overwrite (bool): Whether the checkpoints of another run in the work
            directory may be replaced. Defaults to False.
        is_restart (bool): Whether a launcher has started the same command
            before: then the newest checkpoint of the work directory comes
            before the one that ``load_from`` names. Defaults to False.

    Returns:
        SavedRun | None: None if there is something to train: build a runner.
        Of a run that has finished before, which process 0 prints, its last
        checkpoint; the path of it is ``cfg.load_from``.

    Raises:
        ValueError: The run cannot start, or not as the user wants.
        OSError: A file is missing or cannot be read.

    Example:
        >>> cfg = Config.fromfile('configs/scfs_r50.py')
        >>> cfg.work_dir = 'work_dirs/mine'
        >>> if prepare_run(cfg) is None:
        ...     Runner.from_cfg(cfg).train()
    """
    if not overwrite:
        check_work_dir(cfg)
    prepare_config(cfg)
    if pretrained:
        start_from(cfg, pretrained, network)
    named = cfg.get('load_from')
    if is_restart and cfg.get('resume'):
        cfg.load_from = None
    saved = choose_checkpoint(cfg)
    if named and cfg.load_from is None:  # nothing was saved before
        cfg.load_from = named
        saved = choose_checkpoint(cfg)
    if finished := describe_finished(cfg, saved):
        on_first_process(print, finished)
        return saved
    settle_views(cfg, saved.cfg if saved else '')
    on_first_process(check_data, cfg)
    on_first_process(lock_work_dir, cfg.work_dir)
    return None
