# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import check_writable
from mmscfs.results import (
    PROTOCOLS,
    Origin,
    Result,
    backbone_name,
    backbone_origin,
    origin_of,
    read_origin,
    result_path,
    write_result,
)

from ..runner_access import unwrapped_model

NOTE = 'pretrained'  # where a checkpoint's meta says what its run started from
SCORE = r'(top\d+|recall|mAP)$'  # higher is better


@HOOKS.register_module()
class ResultFileHook(Hook):
    """Write what an evaluation reached as JSON beside its checkpoint.

    After a training these are the scores of the validation at its end, and
    the best of all validations as ``best/...``; after a test its scores. The
    file of an earlier run of the same config on the same checkpoint is
    replaced.

    The file lies beside the checkpoint that the backbone's ``init_cfg`` names
    (see :func:`result_path`), or without one in the work directory, as
    ``<config>.json``. Checkpoints of the run note what it started from, for
    resumed runs and tests.

    Example:
        In a config:

        >>> evaluation = dict(protocol='linear', dataset='in1k')
        >>> default_hooks = dict(result=dict(type='ResultFileHook'))
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.path: Path | None = None
        self.trained: int | None = None
        self.validation: tuple[int, dict] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read what a whole model, loaded or resumed, started from."""
        meta = checkpoint.get('meta')
        meta = meta if isinstance(meta, Mapping) else {}
        by_epoch = 'max_epochs' in (runner.cfg.get('train_cfg') or {})
        trained = meta.get('epoch' if by_epoch else 'iter')
        self.trained = trained if isinstance(trained, int) else None
        path = runner.cfg.get('load_from')
        origin = read_origin(path, checkpoint) if path else Origin()
        # Without a note it was trained without this hook.
        self.start = read_note(meta) or describe(
            origin._replace(checkpoint=None, network=None)
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what the run started from."""
        checkpoint['meta'][NOTE] = self.start

    def before_train(self, runner: Runner, mode: str = 'train') -> None:
        """Find start and file, and check them before the long work.

        Raises:
            OSError: The result cannot be written.
            ValueError: The config does not say what it evaluates.
        """
        if not is_main_process():
            return
        evaluation = runner.cfg.get('evaluation') or {}
        if evaluation.get('protocol') not in PROTOCOLS or not isinstance(
            evaluation.get('dataset'), str
        ):
            raise ValueError(
                f'ResultFileHook: evaluation={dict(evaluation)} must name a '
                f'protocol ({", ".join(PROTOCOLS)}) and a dataset, e.g. '
                "dict(protocol='linear', dataset='in1k'); or leave "
                'default_hooks.result out'
            )
        if is_pretraining(runner):
            self.start = pretraining_start(runner, mode)
        elif self.start is None:
            backbone = runner.cfg.model.get('backbone') or {}
            self.start = describe(backbone_origin(backbone))
        config = config_stem(runner)
        checkpoint, network = self.start['checkpoint'], self.start['network']
        if checkpoint and Path(checkpoint).is_file():
            if network == read_origin(checkpoint).network:
                network = None  # an exported student has no teacher beside it
            self.path = result_path(checkpoint, config, network)
        else:
            self.path = Path(runner.work_dir, f'{config}.json')
        check_writable(self.path)

    def before_test(self, runner: Runner) -> None:
        """Find and check the same for a test."""
        self.before_train(runner, 'test')

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Keep a validation's scores; it may be the last."""
        self.validation = progress(runner), dict(metrics or {})

    def after_train(self, runner: Runner) -> None:
        """Write the scores of the validation at the end."""
        if not is_main_process():
            return
        if self.validation is None or self.validation[0] != progress(runner):
            runner.logger.log(
                logging.WARNING,
                'no result was written: there was no validation at the end '
                'of the training (see val_cfg and train_cfg.val_begin)',
            )
            return
        reached, metrics = self.validation
        histories = runner.message_hub.log_scalars
        best = {
            f'best/{name}': float(histories[f'val/{name}'].max())
            for name in metrics
            if re.search(SCORE, name) and f'val/{name}' in histories
        }
        self.write(runner, metrics | best, reached, 'val')

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the scores of a test."""
        if is_main_process():
            self.write(runner, metrics or {}, self.trained, 'test')

    def write(
        self, runner: Runner, metrics: Mapping, epoch: int | None, split: str
    ) -> None:
        """Write the result, with the metrics that are numbers."""
        cfg, start, path = runner.cfg, self.start, self.path
        assert start is not None  # as before_train() has found it
        assert path is not None
        pretraining = start['pretraining']
        if split == 'val' and is_pretraining(runner):
            pretraining = pretraining | dict(epochs=epoch)
        checkpoint = start['checkpoint']
        result = Result(
            protocol=cfg.evaluation.protocol,
            dataset=cfg.evaluation.dataset,
            config=config_stem(runner),
            checkpoint=checkpoint and Path(checkpoint).name,
            network=start['network'],
            pretraining=pretraining,
            backbone=backbone_name(cfg.model.get('backbone') or {}),
            metrics={
                name: value
                for name, value in metrics.items()
                if isinstance(value, (int, float))
            },
            settings=read_settings(runner, split),
            work_dir=str(runner.work_dir),
            epoch=epoch,
        )
        write_result(path, result)
        runner.logger.info(f'result written to {path}')


def is_pretraining(runner: Runner) -> bool:
    """Whether a pre-training is evaluated on its way, or tested."""
    return isinstance(unwrapped_model(runner), BaseSelfSupervisor)


def pretraining_start(runner: Runner, mode: str) -> dict[str, Any]:
    """Describe a pre-training by its config, or by its checkpoint."""
    path = runner.cfg.get('load_from')
    if mode == 'test' and path:
        origin = read_origin(path)
        network = getattr(runner.test_loop, 'network', None)
        return describe(origin._replace(network=network or origin.network))
    return describe(origin_of(runner.cfg.to_dict(), get_world_size()))


def describe(origin: Origin) -> dict[str, Any]:
    """Return an origin as results and checkpoints keep it."""
    return dict(
        checkpoint=origin.checkpoint,
        network=origin.network,
        pretraining=dict(
            method=origin.method,
            epochs=origin.epochs,
            batch_size=origin.batch_size,
            dataset=origin.data or None,
            **origin.recipe,
        ),
    )


def read_note(meta: Mapping) -> dict[str, Any] | None:
    """Return the note of a run's start, None if this hook wrote none."""
    note = meta.get(NOTE)
    if (
        isinstance(note, Mapping)
        and isinstance(note.get('pretraining'), Mapping)
        and all(
            isinstance(note.get(name), (str, NoneType))
            for name in ('checkpoint', 'network')
        )
    ):
        return {**describe(Origin()), **note}
    return None


def config_stem(runner: Runner) -> str:
    """Return the name of the run's config, "config" without a file."""
    return Path(runner.cfg.filename or 'config').stem


def progress(runner: Runner) -> int:
    """Return the epochs that a run has trained, or else the iterations."""
    # Not .train_loop, which a validation alone would have to build.
    by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
    return runner.epoch if by_epoch else runner.iter


def read_settings(runner: Runner, split: str) -> dict[str, Any]:
    """Return the settings that took part in an evaluation."""
    cfg = runner.cfg
    train_cfg = cfg.get('train_cfg') or {}
    settings = pick(train_cfg, 'max_epochs', 'max_iters')
    loop = runner.val_loop if split == 'val' else runner.test_loop
    settings['val_images'] = len(loop.dataloader.dataset)
    bank = getattr(loop, 'bank_dataloader', None)
    if split == 'val':
        bank = bank or runner.train_dataloader
        wrapper = cfg.get('optim_wrapper') or {}
        settings |= pick(wrapper.get('optimizer') or {}, 'lr', 'weight_decay')
        settings['batch_size'] = (
            runner.train_dataloader.batch_size
            * get_world_size()
            * wrapper.get('accumulative_counts', 1)
        )
        scale = cfg.get('auto_scale_lr') or {}
        if scale.get('enable'):  # of the learning rate
            settings['base_batch_size'] = scale['base_batch_size']
    if bank is not None:
        settings['train_images'] = len(bank.dataset)
    return settings


def pick(settings: Mapping, *names: str) -> dict[str, Any]:
    """Return the settings of these names that there are."""
    return {name: settings[name] for name in names if name in settings}
