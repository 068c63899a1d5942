# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a person reads of a run: little, and first things first."""

import io
import logging
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_main_process, master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import (
    EpochBasedTrainLoop,
    Runner,
    find_latest_checkpoint,
)
from mmpretrain.models import BaseSelfSupervisor
from torch import nn
from torch.utils.data import DataLoader

from mmscfs.checkpoint import write_atomically
from mmscfs.datasets.image_files import UNREADABLE
from mmscfs.ops import check_operators, describe_operators
from mmscfs.results import backbone_name, backbone_origin

from .hooks.length_hook import LengthHook
from .precision import TF32Hook, precision_of
from .runner_access import param_groups, unwrapped_model

# How messages begin that nobody can act on.
ASIDES = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Distributed training is not used, all SyncBatchNorm',
    'Checkpoints will be saved to',
    'Loads checkpoint by',
    'Exp name:',
    'Operators of mmcv:',
    # Of mmdet's metrics, whose figures follow in one line.
    'paramwise_options',  # a line for each parameter
    *('Evaluating bbox', 'Evaluating segm', '---------------iou_thr'),
    *('bbox_mAP_copypaste', 'segm_mAP_copypaste'),
)
# A line of the log in a run that counts epochs: epoch, step, steps.
TRAIN_LINE = re.compile(r'Epoch\(train\) *\[ *(\d+)\]\[ *(\d+)/(\d+)\]')
SHOWN = 5  # warnings in the summary
# What a run is refused with.
REFUSALS = (ValueError, OSError, SyntaxError, KeyError)


class ScreenFilter(logging.Filter):
    """Leave to the log file what is long, and what nobody can act on.

    Environment, config, hooks and initialization are messages of several
    lines. mmengine logs at the end of every short epoch; the screen has a
    line for every ``interval`` steps at most. A record whose ``screen`` is
    true is shown whatever it is.

    Args:
        interval (int): Steps from one line of the training to the next.
            Defaults to 1.
    """

    def __init__(self, interval: int = 1) -> None:
        super().__init__()
        self.interval = interval
        self.due = 0  # the step from which on a line is shown

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is for the screen."""
        message = record.getMessage()
        if found := TRAIN_LINE.match(message):
            epoch, step, steps = map(int, found.groups())
            done = (epoch - 1) * steps + step
            if done < self.due:
                return False
            self.due = done + self.interval
        is_long = record.levelno <= logging.INFO and '\n' in message
        is_aside = is_long or message.startswith(ASIDES)
        return getattr(record, 'screen', False) or not is_aside


class WarningCollector(logging.Handler):
    """Keep the first line of each warning until the run has begun."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(ScreenFilter())
        self.lines: dict[str, None] = {}  # in order, each once

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self.lines[record.getMessage().strip().split('\n')[0]] = None


@contextmanager
def prints_in_log() -> Iterator[None]:
    """Put what a library prints into the log file instead of the screen.

    pycocotools prints for each data set and each evaluation.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        logger = MMLogger.get_current_instance()
        if printed.getvalue() and logger.log_file:
            logger.info('\n' + printed.getvalue())


@contextmanager
def only_warnings() -> Iterator[None]:
    """Log warnings alone: mmengine has a line for each parameter's options."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class QuietEvaluator(Evaluator):
    """mmengine's evaluator, whose metrics print into the log file."""

    def evaluate(self, size: int) -> dict:
        """Return the figures of all metrics."""
        with prints_in_log():
            return super().evaluate(size)


class ScreenRunner(Runner):
    """mmengine's runner, with less on the screen and no trace of a refusal.

    The screen has no environment, config and hooks, nor what data sets and
    metrics print. A run that is refused
    before its first step leaves the config in the work directory as it was,
    and no folder of logs.
    """

    has_begun = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with self.traceless_if_refused():
            super().__init__(*args, **kwargs)

    def train(self) -> nn.Module:
        """Train."""
        with self.traceless_if_refused():
            return super().train()

    @contextmanager
    def traceless_if_refused(self) -> Iterator[None]:
        """Remove the folder of logs if the run is refused."""
        try:
            yield
        except REFUSALS:
            folder = getattr(self, '_log_dir', None)
            if folder and not self.has_begun and is_main_process():
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def begin(self) -> None:
        """Note that nothing refuses the run, and keep its config."""
        self.has_begun = True
        self.dump_config()

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work directory, once the run begins.

        Raises:
            OSError: It cannot be written; one that was there stays.
        """
        if self.has_begun:
            name = Path(self.cfg.filename or f'{self.timestamp}.py').name
            text = self.cfg.dump().encode()
            write_atomically(Path(self.work_dir, name), text)

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """Build a data loader and its data set."""
        with prints_in_log():
            return Runner.build_dataloader(*args, **kwargs)

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """Build an evaluator of mmengine's type, or a config's own."""
        with prints_in_log():
            if isinstance(evaluator, Evaluator) or 'metrics' in evaluator:
                return super().build_evaluator(evaluator)
            return QuietEvaluator(evaluator)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger, whose file has everything."""
        logger = super().build_logger(*args, **kwargs)
        hook = (self.cfg.get('default_hooks') or {}).get('logger') or {}
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(ScreenFilter(hook.get('interval', 10)))
            elif isinstance(handler, logging.FileHandler):
                handler.handleError = told_once(handler)  # type: ignore
        return logger


def told_once(handler: logging.FileHandler) -> Callable[[Any], None]:
    """Return what warns of the first line that a full disk takes no more.

    Python would print a traceback and the message, for each.
    """

    def tell(_: Any) -> None:
        handler.handleError = lambda _: None  # type: ignore
        print(
            f'warning: the log {handler.baseFilename} lacks lines from here '
            f'on: {sys.exc_info()[1]}',
            file=sys.stderr,
        )

    return tell


class SummaryHook(Hook):
    """Say before the first step what is about to happen, and at the end
    what came of it."""

    priority = 'LOW'  # after all checks, before what takes time

    def __init__(self, changes: Sequence[str] = ()) -> None:
        self.changes = [*changes]
        self.warnings = WarningCollector()

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Print one block: data, length, rate, precision, device, start."""
        self.begin = time.time()
        runner.logger.removeHandler(self.warnings)
        # A resumed run has the schedules of its checkpoint.
        changes = [] if runner.iter else self.changes
        lines = [f'  {"fitted":<12} {text}' for text in changes]
        text = summarize(runner, list(self.warnings.lines))
        say(runner, '\n'.join([text, *lines]))

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Have the runner keep its config."""
        if isinstance(runner, ScreenRunner) and not runner.has_begun:
            runner.begin()

    before_test = before_train_iter

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Print duration, checkpoint and the commands that follow."""
        took = timedelta(seconds=round(time.time() - self.begin))
        lines = [f'Finished in {took}.']
        checkpoint = find_latest_checkpoint(runner.work_dir)
        if checkpoint:
            lines.append(f'  checkpoint   {checkpoint}')
            lines += [f'  next         {c}' for c in following(runner)]
        unreadable = Path(runner.work_dir, UNREADABLE)
        if unreadable.is_file():
            lines.append(f'  skipped      the files that {unreadable} lists')
        name = shlex.quote(str(checkpoint))
        say(runner, '\n'.join(lines).replace('CHECKPOINT', name))


def say(runner: Runner, text: str) -> None:
    """Log a text of several lines to the screen, too."""
    runner.logger.info('\n' + text, extra=dict(screen=True))


def summarize(runner: Runner, warnings: list[str]) -> str:
    """Return the block of a run that is about to take its first step."""
    cfg, loop, loader = runner.cfg, runner.train_loop, runner.train_dataloader
    model, processes = unwrapped_model(runner), get_world_size()
    backbone = cfg.model.get('backbone') or {}
    dataset = loader.dataset
    while hasattr(dataset, 'dataset'):  # wrapped
        dataset = dataset.dataset
    wrapper = cfg.get('optim_wrapper') or {}
    steps = wrapper.get('accumulative_counts', 1)
    size = loader.batch_size or loader.batch_sampler.batch_size  # mmdet's
    batch = size * processes * steps
    parts = [f'{size} images']
    parts += [f'{processes} processes'] * (processes > 1)
    parts += [f'{steps} accumulated'] * (steps > 1)
    if isinstance(loop, EpochBasedTrainLoop):
        length = f'{loop.max_epochs} epochs x {len(loader)} steps'
        length += f', {runner.max_iters:,} in all'
    else:
        length = f'{loop.max_iters:,} steps'
    start = backbone_origin(backbone).label if backbone else 'random'
    if cfg.get('load_from'):
        start = f'all of {cfg.load_from}'
    if cfg.get('resume') and runner.iter:
        start = f'resumed after step {runner.iter} from {cfg.load_from}'
    rate = max(g.get('initial_lr', g['lr']) for g in param_groups(runner))
    rows = dict(
        model=' '.join([type(model).__name__, backbone_name(backbone)])
        if backbone
        else type(model).__name__,
        images=f'{len(loader.dataset):,} of {source_of(dataset)}',
        length=length,
        batch=f'{batch} ({" x ".join(parts)})',
        rate=f'at most {rate:.3g}',
        precision=precision_of(runner.optim_wrapper),
        device=f'{get_device()}, {processes} process' + 'es' * (processes > 1),
        start=start,
        log=str(MMLogger.get_current_instance().log_file),
    )
    lines = [f'  {name:<12} {text}' for name, text in rows.items()]
    if len(warnings) > SHOWN:
        more = f'and {len(warnings) - SHOWN} more, see the log'
        warnings = [*warnings[:SHOWN], more]
    lines += [f'  {"warning":<12} {text}' for text in warnings]
    return '\n'.join(['This run:', *lines])


def source_of(dataset: Any) -> str:
    """Return the folder or file of a data set."""
    if parts := getattr(dataset, 'datasets', None):
        return f'{len(parts)} data sets'
    prefix = getattr(dataset, 'data_prefix', None)
    folders = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    names = [getattr(dataset, name, '') for name in ('data_root', 'ann_file')]
    found = [str(name) for name in (*names, *folders) if name]
    return found[0] if found else type(dataset).__name__


def following(runner: Runner) -> list[str]:
    """Return the commands that use a finished run's checkpoint."""
    config = shlex.quote(runner.cfg.filename or 'CONFIG')
    if isinstance(unwrapped_model(runner), BaseSelfSupervisor):
        return [
            'python tools/analysis_tools/report.py '
            + shlex.quote(str(runner.work_dir)),
            'python tools/recipe.py --detector ANNOTATIONS --images FOLDER '
            '--pretrained CHECKPOINT --out my_det.py',
        ]
    commands = []
    if runner.cfg.get('test_dataloader'):
        commands.append(f'python tools/test.py {config} CHECKPOINT')
        if runner.cfg.get('default_scope') == 'mmdet':
            out = shlex.quote(str(Path(runner.work_dir, 'found')))
            commands.append(
                f'python tools/detect.py {config} CHECKPOINT NEW_IMAGES '
                f'--out {out}'
            )
    return commands


def build_runner(cfg: Config, changes: Sequence[str] = ()) -> Runner:
    """Build the runner of a config, with a readable screen.

    Args:
        cfg (Config): With ``runner_type`` if it is not mmengine's Runner.
        changes (Sequence[str]): What was fitted to the run's length, for the
            summary. Defaults to nothing.

    Returns:
        Runner: Ready to train or test.

    Raises:
        ValueError: The model needs operators of mmcv that are not installed.

    Example:
        >>> runner = build_runner(Config.fromfile('configs/scfs_r50.py'))
        >>> runner.train()
    """
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = ScreenRunner.from_cfg(cfg)
    runner.logger.info(describe_operators())
    check_operators(unwrapped_model(runner))
    summary = SummaryHook(changes)
    runner.logger.addHandler(summary.warnings)
    runner.register_hook(LengthHook())
    runner.register_hook(TF32Hook())
    runner.register_hook(summary)
    return runner
